"""What does monitoring see? The status document as metrics, in the formats of Prometheus and OpenMetrics."""

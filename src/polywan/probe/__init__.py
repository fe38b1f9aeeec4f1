"""Probes: every socket is bound to its uplink before it connects or sends."""

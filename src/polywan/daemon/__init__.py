"""The shell around the engine: one queue, one loop, and the few effects it asks for."""

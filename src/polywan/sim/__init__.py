"""What would the daemon do? The engine's effects carried out in a world of values, on a clock that jumps."""

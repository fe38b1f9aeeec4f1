"""What is read of a machine, as values."""

"""polywan: use every Internet link of a Linux box at once."""

__version__ = "0.1.0"

"""What is out there? The machine's network as the kernel and other programs show it, as values."""

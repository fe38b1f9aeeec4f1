"""Read a machine without changing anything: the kernel, programs, files, and the lines."""

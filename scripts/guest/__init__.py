"""The guest: another Linux kernel over this machine's files, for tests of what this kernel lacks (see scripts/vm)."""

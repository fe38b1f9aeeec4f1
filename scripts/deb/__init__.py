"""Builds the Debian package: scripts/package says how it is called, docs/design/packaging.md what is in it."""

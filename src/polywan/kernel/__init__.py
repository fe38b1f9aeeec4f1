"""The only package that touches Linux networking."""

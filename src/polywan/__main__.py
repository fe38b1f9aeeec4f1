"""``python -m polywan`` is the command."""

from polywan.cli import main

main()

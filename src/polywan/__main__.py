"""The command itself, and ``python -m polywan``. Imports nothing before Ctrl-C can be taken for what it is."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; Ctrl-C ends it with 130 from the first moment on."""
    try:
        from polywan.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

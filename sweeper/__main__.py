"""``python -m sweeper``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from sweeper import cli

    sys.exit(cli.main(sys.argv[1:]))


if __name__ == "__main__":
    main()

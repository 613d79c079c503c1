"""``python -m sweeper``."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from sweeper import cli

    for stream in (sys.stdout, sys.stderr):
        # A label may have letters that the terminal's encoding lacks; spelling them out (\\xf6) is better
        # than losing the answer of a study that is complete.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(cli.main(sys.argv[1:]))


if __name__ == "__main__":
    main()

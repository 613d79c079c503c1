"""``python -m analysis``."""

import io
import sys

from analysis.cli import main

if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        # Letters that the terminal's encoding lacks are spelt out, as in sweeper.__main__.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main())

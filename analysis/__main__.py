"""``python -m analysis``."""

import sys

from analysis.cli import main
from sweeper.text.output import prepare_streams

if __name__ == "__main__":
    prepare_streams()
    sys.exit(main())

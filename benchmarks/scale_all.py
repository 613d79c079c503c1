"""Every number about thousands of trials that ``README.md`` names, beside those of another checkout if asked.

    TMPDIR=/dev/shm python benchmarks/scale_all.py
    TMPDIR=/dev/shm python benchmarks/scale_all.py --against ../before --rounds 3 --only grid

Runs ``scale.py`` and ``scale_plan.py`` of this folder, each part as a process of its own, and prints what
they print. With ``--against`` each part runs on the packages of either checkout in turn, so that other
programs on the machine weigh on both alike; compare CPU seconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

PARTS = {
    "grid": ("scale_plan.py", "grid", "--trials", "300", "1000", "10000"),
    "plan": ("scale_plan.py", "plan", "--trials", "1000", "10000"),
    "stored": ("scale.py", "--trials", "1000", "10000"),
    "rows": ("scale.py", "--trials", "100", "1000", "--rows", "12"),
    "dashboard": ("scale_plan.py", "dashboard", "--trials", "1000", "10000"),
}
"""What is run, by name: driving, planning, storing to reporting at one row a trial and at twelve, showing."""


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout of this project, which runs first")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    checkouts = [HERE.parent] if options.against is None else [options.against.resolve(), HERE.parent]
    for name in options.only:
        for number in range(options.rounds):
            # In turn the one and the other comes first: what warms up or slows down is shared out.
            for checkout in checkouts if number % 2 == 0 else checkouts[::-1]:
                print(
                    f"\n{name}, round {number + 1}, {checkout.name}, load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
                script, *words = PARTS[name]
                subprocess.run(
                    [sys.executable, str(HERE / script), *words],
                    cwd=checkout,
                    env={**os.environ, "PYTHONPATH": str(checkout)},
                    check=True,
                )


if __name__ == "__main__":
    main()

"""How long the program takes to say something: its help, and that the configuration holds a mistake.

    python benchmarks/start_up.py [--against CHECKOUT] [--runs 9]

Nearly all of it is imports, so this is what a dependency costs everybody who uses the command line. With
another checkout (of the commit before a change, say) both are run in alternation, the order changing with
every round, and the ratio is that of the medians: other programs on the machine then slow both alike. CPU
seconds are of the process, which other programs lengthen less than they lengthen wall time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).resolve().parents[1]
_COMMANDS: dict[str, tuple[tuple[str, ...], int]] = {
    "help": (("--help",), 0),
    "mistake": (("nonsense=1",), 2),
}
"""Arguments of each command, and the exit code that it must have."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Times of one command, run once."""

    wall_s: float
    cpu_s: float


def main() -> None:
    """Time both commands in this checkout, and in the other one if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout, which the ratio is taken against")
    parser.add_argument("--runs", type=int, default=9, help="how often each command is run; default: 9")
    options = parser.parse_args()
    checkouts = [_HERE] if options.against is None else [_HERE, options.against.resolve()]
    print(f"{options.runs} runs each, load average {os.getloadavg()[0]:.1f}")
    for name in _COMMANDS:
        _report(name, checkouts, runs=options.runs)


def _report(name: str, checkouts: Sequence[Path], *, runs: int) -> None:
    arguments, exit_code = _COMMANDS[name]
    times: dict[Path, list[Times]] = {checkout: [] for checkout in checkouts}
    for checkout in checkouts:
        _run(checkout, arguments, exit_code=exit_code)  # writes the byte code
    for number in range(runs):
        for checkout in checkouts if number % 2 == 0 else reversed(checkouts):
            times[checkout].append(_run(checkout, arguments, exit_code=exit_code))
    walls = [statistics.median(run.wall_s for run in times[checkout]) for checkout in checkouts]
    cpus = [statistics.median(run.cpu_s for run in times[checkout]) for checkout in checkouts]
    for where, wall_s, cpu_s in zip(("here", "there"), walls, cpus, strict=False):
        print(f"{name:8} {where:6} median {wall_s:.3f} s, CPU {cpu_s:.3f} s", flush=True)
    if len(checkouts) > 1:
        print(f"{name:8} ratio  {walls[0] / walls[1]:.3f}, CPU {cpus[0] / cpus[1]:.3f}", flush=True)


def _run(checkout: Path, arguments: Sequence[str], *, exit_code: int) -> Times:
    before, began_s = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "sweeper", *arguments], cwd=checkout, capture_output=True, check=False
    )
    wall_s, after = time.perf_counter() - began_s, os.times()
    if done.returncode != exit_code:
        raise SystemExit(
            f"{checkout}: exit code {done.returncode}; expected {exit_code}\n{done.stderr.decode()}"
        )
    children = (after.children_user - before.children_user, after.children_system - before.children_system)
    return Times(wall_s=wall_s, cpu_s=sum(children))


if __name__ == "__main__":
    main()

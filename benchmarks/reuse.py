"""What sharing saves on the real vLLM (CPU build): trials side by side, warm caches, instances together.

Three questions, each answered by two runs of the same command beside each other, on the cpu platform with a
tiny model. Every run is an ordinary sweep in a folder of its own, so what is timed is what a user waits for.

    python benchmarks/reuse.py [study] [start] [instances]     # needs: python -m sweeper cpu-vllm

* ``study``: the wall time of 8 trials (TP 1, a core each), one at a time against two at a time.
* ``start``: engine start with compilation, from an empty cache against the cache that the first one left.
* ``instances``: two engines of TP 1 as one trial: does it complete, and as what is it stored.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from sweeper.store.store import Store

_EIGHT = ("space.knobs.max_num_seqs=[4,8,16,32]", "space.knobs.max_num_batched_tokens=[256,1024]")
_ONE = ("space.knobs.max_num_seqs=[16]", "space.knobs.max_num_batched_tokens=[1024]")


def main() -> None:
    """Answer the questions that are named, or all."""
    questions = {"study": _study, "start": _start, "instances": _instances}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("questions", nargs="*", help=f"of {', '.join(questions)}; all unless named")
    chosen = parser.parse_args().questions or list(questions)
    with tempfile.TemporaryDirectory(prefix="reuse-") as folder:
        for name in chosen:
            questions[name](Path(folder))


def _study(folder: Path) -> None:
    caches = folder / "study-cache"
    # One start beforehand fills the disk's cache, which the first of the two would otherwise pay for both.
    _sweep(folder, "warming", *_ONE, caches=caches)
    one = _sweep(folder, "one-at-a-time", *_EIGHT, "executor.max_parallel=1", caches=caches)
    two = _sweep(folder, "two-at-a-time", *_EIGHT, "executor.max_parallel=2", caches=caches)
    print(
        f"8 trials one at a time {one:7.1f} s, two at a time {two:7.1f} s, ratio {one / two:.2f}", flush=True
    )


def _start(folder: Path) -> None:
    caches = folder / "start-cache"
    for name in ("first", "second"):
        _sweep(folder, name, *_ONE, "knobs.enforce_eager=false", caches=caches)
    first, second = (float(_rows(folder, name)["engine_start_s"].iloc[0]) for name in ("first", "second"))
    print(f"first start {first:6.1f} s, second start {second:6.1f} s, ratio {first / second:.2f}", flush=True)


def _instances(folder: Path) -> None:
    _sweep(folder, "instances", *_ONE, "+knobs.instances=2", caches=folder / "instances-cache")
    for _, row in _rows(folder, "instances").iterrows():
        told = f"devices {','.join(map(str, row['devices']))}, by {row['effective.instances_by']}"
        print(f"2 instances: {row['state']}, {told}, {row['request_throughput_per_s']:.2f} requests/s")


def _sweep(folder: Path, name: str, *overrides: str, caches: Path) -> float:
    """Run one sweep and give the seconds that it took; a run that leaves a trial out ends the benchmark."""
    began = time.monotonic()
    subprocess.run(
        [
            *(sys.executable, "-m", "sweeper", "+experiment=cpu_smoke", "executor=inline"),
            *(f"study.outputs={folder}", f"study.name={name}", *overrides),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "XDG_CACHE_HOME": str(caches)},
    )
    return time.monotonic() - began


def _rows(folder: Path, name: str) -> pd.DataFrame:
    return Store(folder / name).read()


if __name__ == "__main__":
    main()

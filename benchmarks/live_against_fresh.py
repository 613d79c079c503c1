"""What settings give on one start that they share, beside a start of each: ratios with intervals.

Runs one experiment as a study with `engine.live=true` and one with `engine.live=false`, the two in turn, so
often; each study is a process of its own, as a user starts it. What is there already is not measured again,
so the command can be repeated until all is measured. Then, for each setting and load, each metric's ratio of
live to fresh: the geometric mean over the rounds and its 95 % t-interval; a round's pair is one value of it.

    python benchmarks/live_against_fresh.py FOLDER [--rounds 3] [--most-s 600] [-- OVERRIDES]

Run it where the sweeper is installed. OVERRIDES are those of the study, such as
`+experiment=cpu_smoke executor=inline engine.python=PYTHON workload.request_rate_per_s=[4,16,null]`.
Writes FOLDER/ratios.csv beside the studies. Results: docs/live.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from sweeper.intervals import geometric

_METRICS = ("request_throughput_per_s", "mean_ttft_ms", "mean_tpot_ms", "p99_e2el_ms")
_WAYS = {"live": "true", "fresh": "false"}


def main() -> int:
    """Measure what is missing, print and write the ratios, and what each way took."""
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path, help="takes the studies and the ratios; made where missing")
    parser.add_argument("--rounds", type=int, default=3, help="studies of each way")
    parser.add_argument("--most-s", type=float, default=float("inf"), help="begin no study after that")
    args = parser.parse_args(words[:at])
    began = time.monotonic()
    for number in range(args.rounds):
        # Who comes first changes, so that a machine that drifts favours none.
        for way in sorted(_WAYS, reverse=number % 2 == 0):
            if time.monotonic() - began < args.most_s:
                _measure(args.folder, way, number, words[at + 1 :])
    rows = pd.concat(list(_rows(args.folder, args.rounds)))
    found = pd.DataFrame(_ratios(rows))
    if not found.empty:
        found.to_csv(args.folder / "ratios.csv", index=False)
        print(found.to_string(index=False))
    trials = rows.drop_duplicates(["way", "round", "trial_key"])
    print(trials.groupby(["way", "round"])[["engine_start_s", "warmup_s"]].sum().round(1).to_string())
    return 0


def _measure(folder: Path, way: str, number: int, overrides: list[str]) -> None:
    words = [f"study.name={way}-{number}", f"study.outputs={folder}", f"engine.live={_WAYS[way]}"]
    subprocess.run([sys.executable, "-m", "sweeper", *overrides, *words, "retry_failed=true"], check=True)


def _rows(folder: Path, rounds: int) -> Iterator[pd.DataFrame]:
    for way in _WAYS:
        for number in range(rounds):
            for path in sorted((folder / f"{way}-{number}" / "measurements").glob("*.parquet")):
                rows = pd.read_parquet(path)
                yield rows[rows["state"] == "complete"].assign(way=way, round=number)


def _ratios(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    knobs = [name for name in rows if name.startswith("knob.") and rows[name].nunique() > 1]
    for keys, group in rows.groupby([*knobs, "request_rate_per_s"], dropna=False):
        for metric in _METRICS:
            table = group.pivot_table(index="round", columns="way", values=metric, aggfunc="mean").dropna()
            if len(table.columns) < len(_WAYS) or table.empty:
                continue
            ratio = geometric((table["live"] / table["fresh"]).tolist())
            yield {
                **dict(
                    zip([*(name.removeprefix("knob.") for name in knobs), "rate_per_s"], keys, strict=True)
                ),
                "metric": metric,
                "live": round(table["live"].mean(), 2),
                "fresh": round(table["fresh"].mean(), 2),
                **{name: _short(getattr(ratio, name)) for name in ("mean", "low", "high")},
                "rounds": ratio.n,
            }


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


if __name__ == "__main__":
    sys.exit(main())

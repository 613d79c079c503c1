"""How often are two equal settings called different? At most as often as promised: 5 %.

Two settings that are the same are measured as finalists are, as if they were different: several engine starts
of each on the simulated platform, with noise of a start and of a run, and the verdict between them. "Better"
and "worse" are both wrong. So that a check that never says anything cannot pass unseen, the same is done
with settings of which one is truly faster. Whole studies of four equal settings tell whether the correction
for several comparisons holds, too: one wrong verdict in any pair counts.

    python benchmarks/aa_check.py [--pairs 200] [--starts 3 5] [--restart-noise 0.02] [--run-noise 0.01]
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from analysis.verdicts import compare
from sweeper.records import (
    EngineSpec,
    LoadPoint,
    Model,
    ModelShape,
    Placement,
    Platform,
    TrialSpec,
    TrialState,
)
from sweeper.records.plurals import percent
from sweeper.trial import trial

METRIC = "request_throughput_per_s"
PLACEMENT = Placement(node="modelled", devices=(0,), parents=(0,))
SPEC = TrialSpec(
    study="aa",
    folder="unused",
    series=(),
    assignment={"max_num_seqs": 64, "max_model_len": 4096},
    load_points=(LoadPoint(dataset="random", num_prompts=8, input_len=32, output_len=4),),
    engine=EngineSpec(kind="simulated", release="0.6.2"),
    model=Model(
        name="small",
        path="small",
        shape=ModelShape(
            layers=2,
            hidden=256,
            intermediate=512,
            heads=4,
            kv_heads=4,
            head_dim=64,
            vocab=1024,
            max_positions=4096,
        ),
    ),
    platform=Platform.SIMULATED,
    devices_wanted=1,
)


def noisy(*, restart_noise: float, run_noise: float) -> TrialSpec:
    """Give the setting on a platform with noise, as shares of all times."""
    return replace(SPEC, calibration={"restart_noise": restart_noise, "run_noise": run_noise})


def starts_of(spec: TrialSpec) -> Iterator[float]:
    """Measure one setting again and again; each engine start is a trial of its own, with its own noise."""
    for number in itertools.count():
        result = trial.run(replace(spec, final=number), PLACEMENT, cancelled=lambda: False)
        assert result.state is TrialState.COMPLETE, result.failure_message
        value = result.measurements[0].metrics[METRIC]
        assert value is not None
        yield value


def wrong_verdicts(values: Iterator[float], *, pairs: int, starts: int, settings: int = 2) -> int:
    """Count studies of equal settings in which some pair is called different."""
    comparisons = settings * (settings - 1) // 2
    wrong = 0
    for _ in range(pairs):
        measured = [list(itertools.islice(values, starts)) for _ in range(settings)]
        verdicts = {
            compare(one, other, is_higher_better=True, comparisons=comparisons).verdict
            for one, other in itertools.combinations(measured, 2)
        }
        wrong += verdicts != {"inconclusive"}
    return wrong


def found_verdicts(values: Iterator[float], *, pairs: int, starts: int, faster: float) -> int:
    """Count the pairs in which a setting that is faster by a share is called better."""
    found = 0
    for _ in range(pairs):
        slow = list(itertools.islice(values, starts))
        fast = [value * (1 + faster) for value in itertools.islice(values, starts)]
        found += compare(fast, slow, is_higher_better=True).verdict == "better"
    return found


def rate_text(count: int, of: int) -> str:
    """Give a share with its 95 % interval.

    Source:
        Wilson (1927), score interval of a proportion.
    """
    z, share = 1.959964, count / of
    centre = (share + z**2 / 2 / of) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * math.sqrt(share * (1 - share) / of + (z / 2 / of) ** 2)
    low, high = (percent(end, ".1") for end in (centre - half, centre + half))
    return f"{count} of {of}: {percent(share, '.1')} (95 % interval {low} to {high})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--starts", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--restart-noise", type=float, default=0.02)
    parser.add_argument("--run-noise", type=float, default=0.01)
    options = parser.parse_args(arguments)
    values = starts_of(noisy(restart_noise=options.restart_noise, run_noise=options.run_noise))
    start, run = (percent(noise, ".1") for noise in (options.restart_noise, options.run_noise))
    print(f"noise of a start {start}, of a run {run}")
    for starts in options.starts:
        wrong = wrong_verdicts(values, pairs=options.pairs, starts=starts)
        print(f"{starts} starts, equal, called better or worse: {rate_text(wrong, options.pairs)}")
        wrong = wrong_verdicts(values, pairs=options.pairs, starts=starts, settings=4)
        print(f"{starts} starts, four equal settings, any pair: {rate_text(wrong, options.pairs)}")
        for faster in (0.05, 0.1):
            found = found_verdicts(values, pairs=options.pairs, starts=starts, faster=faster)
            print(
                f"{starts} starts, {percent(faster)} faster, called better: {rate_text(found, options.pairs)}"
            )


if __name__ == "__main__":
    main()

"""How well 500 mixed trials are packed, against a lower bound and against Ray alone.

Trials of 1, 2, 4 and 8 devices, 2 % of them exclusive (alone on the node), with durations log-uniform over a
factor of ten, go through the real scheduler (``sweeper.schedule``) on a virtual clock, on a modelled node in
SPX (8 devices) and in CPX (64). Predictions are exact, or wrong by up to 30 % either way.

The lower bound of the makespan is the largest of what no schedule can beat: the exclusive trials one after
another and then the others' device-seconds on all devices; and the longest trial.

    python benchmarks/scheduling.py [--seeds 5] [--ray]

With --ray the same trials also run as tasks of a real Ray that sleep (num_gpus only, exclusive ones ask for
all devices, submitted in the order written), at 1 s of a trial = 0.5 ms; blocks are read from
``ray.get_gpu_ids``.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

from sweeper.records.plurals import percent
from sweeper.schedule.occupancy import Entry
from sweeper.schedule.scheduler import Scheduler, makespan_s, play
from sweeper.topology import Node, modelled_mi300x

TRIALS = 500
SHORTEST_S = 60.0
SPREAD = 10.0
EXCLUSIVE_SHARE = 0.02
ERROR = 0.3
RAY_SCALE = 0.0005


def mixed_trials(seed: int) -> list[Entry]:
    """Give the trials; their prediction is their true duration."""
    rng = random.Random(seed)
    return [
        Entry(
            key=str(number),
            devices=rng.choice((1, 2, 4, 8)),
            predicted_s=SHORTEST_S * SPREAD ** rng.random(),
            is_exclusive=rng.random() < EXCLUSIVE_SHARE,
        )
        for number in range(TRIALS)
    ]


def lower_bound_s(trials: Sequence[Entry], *, devices: int) -> float:
    """Seconds that no schedule on one node of so many devices can beat."""
    alone_s = sum(trial.predicted_s for trial in trials if trial.is_exclusive)
    area = sum(trial.predicted_s * trial.devices for trial in trials if not trial.is_exclusive)
    return max(alone_s + area / devices, max(trial.predicted_s for trial in trials))


def run_here(node: Node, trials: Sequence[Entry], *, error: float, seed: int) -> tuple[float, int]:
    """Run the trials through the real scheduler.

    Returns:
        Makespan over lower bound, and blocks of several devices that are not aligned.
    """
    rng = random.Random(seed + 1000)
    lasts_s = {trial.key: trial.predicted_s for trial in trials}
    predicted = [
        replace(trial, predicted_s=trial.predicted_s * rng.uniform(1 - error, 1 + error)) for trial in trials
    ]
    spans = play(Scheduler((node,)), predicted, lasts_s=lambda entry: lasts_s[entry.key])
    unaligned = sum(not _is_aligned(span.placement.devices) for span in spans)
    return makespan_s(spans) / lower_bound_s(trials, devices=len(node.devices)), unaligned


def run_on_ray(trials: Sequence[Entry], *, devices: int) -> tuple[float, int, int]:
    """Run the trials as sleeping tasks of a real Ray.

    Returns:
        Wall time over the scaled lower bound, blocks of several devices, and those of them that are not
        aligned.
    """
    import ray

    def sleep(seconds: float) -> list[int]:
        time.sleep(seconds)
        return sorted(int(index) for index in ray.get_gpu_ids())

    ray.init(
        address="local", num_cpus=devices, num_gpus=devices, include_dashboard=False, log_to_driver=False,
        logging_level="error",
    )  # fmt: skip
    try:
        task = ray.remote(sleep)
        # Worker processes start once, before the clock does.
        ray.get([task.options(num_cpus=0, num_gpus=1).remote(1.0) for _ in range(devices)])
        began = time.monotonic()
        blocks = ray.get(
            [
                task.options(num_cpus=0, num_gpus=devices if trial.is_exclusive else trial.devices).remote(
                    trial.predicted_s * RAY_SCALE
                )
                for trial in trials
            ]
        )
        took_s = time.monotonic() - began
    finally:
        ray.shutdown()
    several = [block for block in blocks if len(block) > 1]
    unaligned = [block for block in several if not _is_aligned(block)]
    return took_s / (lower_bound_s(trials, devices=devices) * RAY_SCALE), len(several), len(unaligned)


def _is_aligned(block: Sequence[int]) -> bool:
    return block[0] % len(block) == 0 and block[-1] - block[0] == len(block) - 1


def main() -> None:
    """Print makespan over lower bound for each node and accuracy of the predictions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ray", action="store_true", help="also run them on a real Ray of 8 GPUs")
    options = parser.parse_args()
    print(f"{TRIALS} trials, makespan over lower bound, seeds 0 to {options.seeds - 1}")
    for mode in ("SPX", "CPX"):
        node = modelled_mi300x(mode)
        for error in (0.0, ERROR):
            found = [
                run_here(node, mixed_trials(seed), error=error, seed=seed) for seed in range(options.seeds)
            ]
            ratios = [makespan for makespan, _ in found]
            print(
                f"{len(node.devices):3} partitions ({mode}), predictions +/- {percent(error, '3.0')}: "
                f"mean {statistics.fmean(ratios):.4f}, worst {max(ratios):.4f}; "
                f"blocks not aligned: {sum(unaligned for _, unaligned in found)}",
                flush=True,
            )
    if options.ray:
        on_ray, several, unaligned = run_on_ray(mixed_trials(0), devices=8)
        print(
            f"  8 GPUs, real Ray (num_gpus only, 1 s = {RAY_SCALE * 1000:g} ms), seed 0: {on_ray:.4f}; "
            f"blocks not aligned: {unaligned} of {several} of several GPUs"
        )
        here, _ = run_here(modelled_mi300x(), mixed_trials(0), error=0.0, seed=0)
        print(f"    the scheduler on the same trials: {here:.4f}")


if __name__ == "__main__":
    main()

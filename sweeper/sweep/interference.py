"""Do trials on one node disturb each other? One control trial, measured alone and next to copies of itself.

Trials side by side finish a study sooner, and are comparable only while a trial's numbers do not depend on
who runs next to it: they share memory bandwidth, host processors, links and power. So the control trial is
run in pairs, once alone and once while copies of it keep every other free block under load; what is
compared is the ratio within a pair, and the order within pairs alternates, so that a drift of the machine
falls on both sides. In a study, trials run next to each other in the same way.

The rows are stored in a study of their own, with the number of copies in ``extra.neighbours``.
"""

from __future__ import annotations

import math
import statistics
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sweeper.engines import Cancelled
from sweeper.errors import EngineError, PlacementError
from sweeper.intervals import geometric
from sweeper.records import (
    FailureClass,
    Measurement,
    Placement,
    Provenance,
    TrialResult,
    TrialSpec,
    TrialState,
    metrics,
)
from sweeper.records.plurals import amount, percent
from sweeper.schedule.allocator import Allocator
from sweeper.trial import trial

NEIGHBOURS = "neighbours"
"""Name of the telemetry that tells how many neighbours a run had."""

METRICS = tuple(metric.name for metric in metrics.METRICS if metric.is_compared)
"""What is compared, as far as the control trial has it."""

NEGLIGIBLE = 0.05
"""An interval within 1 +/- this counts as no effect: the spread that restarts of one engine have anyway."""

# A copy repeats its load until the control is done; it never gets to the end of this.
_NEIGHBOUR_RUNS = 1_000_000
_POLL_S = 0.05

RunTrial = Callable[..., TrialResult]
"""``trial.run``, or what stands for it."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The control trial alone and next to its copies, one after the other."""

    alone: TrialResult
    beside: TrialResult


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the pairs show about one metric.

    Attributes:
        ratio: Loaded over alone, the geometric mean of the pairs.
        low: Lower bound of the ratio's 95 % interval; None for a single pair.
        high: Upper bound; None for a single pair.
        pairs: How many pairs have the metric.
    """

    metric: str
    ratio: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def verdict(self) -> str:
        """One sentence: interferes, no effect seen above some size, or inconclusive."""
        if self.low is None or self.high is None:
            return "inconclusive: one pair has no interval; ask for more with --pairs"
        if self.low > 1 or self.high < 1:
            change = "higher" if self.ratio > 1 else "lower"
            return f"interferes: {percent(abs(self.ratio - 1), '.1')} {change} beside neighbours"
        bound = max(self.high - 1, 1 - self.low)
        if bound <= NEGLIGIBLE:
            return f"no effect seen above {percent(bound, '.1')}"
        effect = f"an effect of up to {percent(bound, '.1')}"
        return f"inconclusive: {effect} cannot be told from chance; ask for more pairs"


def run_pairs(
    spec: TrialSpec,
    allocator: Allocator,
    *,
    pairs: int,
    keep: Callable[[TrialResult], object],
    cancelled: Cancelled,
    first_attempt: int = 1,
    run: RunTrial = trial.run,
) -> Iterator[Pair]:
    """Run the control trial in pairs, and yield each pair as it is done.

    Args:
        spec: The control trial.
        allocator: Of the whole node; nothing else may be placed by it meanwhile.
        pairs: How many.
        keep: Called with every control run, failed ones too.
        cancelled: Polled; true ends everything.
        first_attempt: Number of the first run's attempt; the rows of a study have each once.
        run: What runs a trial.

    Raises:
        PlacementError: The node has no second block of this size.
        EngineError: A run of the control or of a copy failed, or was stopped.
    """
    control = allocator.acquire(spec.devices_wanted)
    others = _other_blocks(spec, allocator)
    if control is None or not others:
        raise PlacementError(
            f"interference: the trial takes {amount(spec.devices_wanted, 'device')} and leaves no "
            "other block of that "
            "size free; expected room for a neighbour. Choose a smaller tensor_parallel_size."
        )
    for number in range(pairs):
        runs: dict[bool, TrialResult] = {}
        # Alone first, then loaded first: a drift of the machine favours neither.
        for is_alone in (True, False) if number % 2 == 0 else (False, True):
            attempt = replace(spec, attempt=first_attempt + 2 * number + len(runs))
            neighbours = () if is_alone else others
            with _under_load(attempt, neighbours, cancelled=cancelled, run=run):
                result = run(attempt, control, cancelled=cancelled)
            result = _with_neighbours(result, len(neighbours))
            if result.failure_class is not FailureClass.INTERRUPTED:
                # What was cut off is not a finding, here as in a sweep.
                keep(result)
            _raise_if_failed(result)
            runs[is_alone] = result
        yield Pair(alone=runs[True], beside=runs[False])


def findings(pairs: Sequence[Pair]) -> list[Finding]:
    """Compare the pairs, metric by metric.

    Args:
        pairs: All of one control trial.

    Returns:
        A finding for each metric that the control trial has.
    """
    found = []
    for metric in METRICS:
        ratios = [ratio for pair in pairs if (ratio := _ratio(pair, metric)) is not None]
        if ratios:
            found.append(finding(metric, ratios))
    return found


def finding(metric: str, ratios: Sequence[float]) -> Finding:
    """Average ratios and give their 95 % interval, both on the logarithm.

    Halving and doubling are the same distance from no change only there, and the interval cannot reach
    below zero.
    """
    found = geometric(ratios)
    return Finding(metric=metric, ratio=found.mean, low=found.low, high=found.high, pairs=found.n)


def conclusion(found: Sequence[Finding], *, provenance: Provenance, neighbours: int) -> str:
    """Sum up in one sentence what holds for all metrics together."""
    if provenance is Provenance.SIMULATED:
        return "simulated: the model of a node has no neighbours, so these ratios are 1 by construction"
    disturbed = [item.metric for item in found if item.verdict.startswith("interferes")]
    beside = f"beside {amount(neighbours, 'neighbour')}"
    if disturbed:
        named = ", ".join(disturbed)
        return f"{beside} the trial interferes with itself in {named}: use study.isolation=exclusive"
    if any(item.verdict.startswith("inconclusive") for item in found):
        return f"{beside} the pairs are inconclusive: ask for more with --pairs"
    return f"{beside} no effect was seen; trials may share this node"


def neighbours_of(result: TrialResult) -> int:
    """Return how many copies ran next to a control run."""
    return int(result.measurements[0].telemetry[NEIGHBOURS] or 0)


def _other_blocks(spec: TrialSpec, allocator: Allocator) -> tuple[Placement, ...]:
    blocks = []
    while (placement := allocator.acquire(spec.devices_wanted)) is not None:
        blocks.append(placement)
    return tuple(blocks)


@contextmanager
def _under_load(
    spec: TrialSpec, placements: Sequence[Placement], *, cancelled: Cancelled, run: RunTrial
) -> Iterator[None]:
    """Keep these blocks under load: each has a copy of the trial that repeats until the end of the block.

    Raises:
        EngineError: A copy ended before it was stopped, so the control was not loaded throughout.
    """
    if not placements:
        yield
        return
    is_over = threading.Event()

    def stop() -> bool:
        return is_over.is_set() or cancelled()

    with ThreadPoolExecutor(max_workers=len(placements), thread_name_prefix="neighbour") as pool:
        loading = [threading.Event() for _ in placements]
        futures = [
            pool.submit(
                run,
                _copy(spec, number),
                placement,
                cancelled=stop,
                before_load=begun.set,
            )
            for number, (placement, begun) in enumerate(zip(placements, loading, strict=True))
        ]
        try:
            for begun, future in zip(loading, futures, strict=True):
                while not begun.wait(_POLL_S):
                    _raise_if_ended(future)
            yield
            for future in futures:
                _raise_if_ended(future)
        finally:
            is_over.set()


def _copy(spec: TrialSpec, number: int) -> TrialSpec:
    """Return a copy of the control trial, with a folder of its own below the trial's."""
    folder = Path(spec.folder) / f"beside-{spec.attempt}-neighbour-{number}"
    return replace(spec, folder=str(folder), repeats=1, runs_per_start=_NEIGHBOUR_RUNS)


def _raise_if_ended(future: Future[TrialResult]) -> None:
    if not future.done():
        return
    result = future.result()
    raise EngineError(
        f"interference: a neighbour ended before the control trial did: {result.failure_message}",
        failure=result.failure_class or FailureClass.CRASH,
        log_path=result.log_path,
    )


def _raise_if_failed(result: TrialResult) -> None:
    if result.state is not TrialState.COMPLETE:
        raise EngineError(
            f"interference: the control trial failed: {result.failure_message}",
            failure=result.failure_class or FailureClass.CRASH,
            log_path=result.log_path,
        )


def _with_neighbours(result: TrialResult, count: int) -> TrialResult:
    measurements = tuple(
        replace(measurement, telemetry={**measurement.telemetry, NEIGHBOURS: count})
        for measurement in result.measurements
    )
    return replace(result, measurements=measurements)


def _ratio(pair: Pair, metric: str) -> float | None:
    """Return loaded over alone, the geometric mean over load points and repeats; None without the metric."""
    alone, beside = _values(pair.alone, metric), _values(pair.beside, metric)
    logs = [math.log(beside[run] / alone[run]) for run in alone if run in beside]
    return math.exp(statistics.fmean(logs)) if logs else None


def _values(result: TrialResult, metric: str) -> Mapping[tuple[object, int, int], float]:
    return {
        _run(item): value for item in result.measurements if (value := item.metrics.get(metric) or 0.0) > 0
    }


def _run(measurement: Measurement) -> tuple[object, int, int]:
    return measurement.load_point, measurement.restart, measurement.repeat

"""What the simulated platform says of a study's trials, moved by those that were measured.

The model of an MI300X node (``simulation``) serves the study's own load, cut short. Each complete trial tells
how far off that is (``simulation.anchors``), and what the model says of all others is moved by it: for the
order of a guided search, for the plan, and for a table that stands beside the results. None of it is ever
stored as a result.

What was measured is kept as it comes, and the model is asked only when a prediction is wanted: a study that
nobody asks pays nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sweeper.clients.simulated import SimulatedClient
from sweeper.engines import never_cancelled
from sweeper.engines.simulated import SimulatedEngine
from sweeper.errors import EngineError, MeasurementError, PlacementError
from sweeper.goals.objectives import answer_of, load_of, measured_row
from sweeper.records import LOAD_COLUMNS, EngineSpec, LoadPoint, Placement, Platform, TrialSpec
from sweeper.schedule.allocator import Allocator
from sweeper.simulation import intervals
from sweeper.simulation.anchors import Anchors, Load, Number, paired
from sweeper.simulation.calibration import CPU_START, WORDS
from sweeper.simulation.device import USUAL_DEVICE
from sweeper.topology import Node, modelled_as
from sweeper.workload import load_search

MOST_PROMPTS = 500
"""Prompts of a load point at most: enough to fill a batch, and about a hundredth of a second to model."""

FEWEST_ROUNDS = 2
"""Prompts of each user at least, however many users: the first of them all begin at once."""

MOST_TRIALS = 64
"""Trials that anchor at most, the latest: more would tell little, and to model each takes its time."""

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A number of a trial, as it is expected from other trials of its study.

    Attributes:
        trial: Key of the trial.
        load: Load point, in words.
        metric: A metric column of the store.
        value: Expected, in the metric's unit.
        low: Lower end of the interval that is to hold four of five; None where nothing anchors it.
        high: Upper end.
        anchored_by: How many trials moved it; 0 is the model's own word.
        measured: What was measured of it later; None where that is still to come.
    """

    trial: str
    load: str
    metric: str
    value: float
    low: float | None
    high: float | None
    anchored_by: int
    measured: float | None = None


class Anchoring:
    """Predicts the trials of one study, and learns from those that finish."""

    def __init__(
        self, *, node: Node, device: str, metrics: Iterable[str] = (), serves_whole: bool = False
    ) -> None:
        """Begin without experience; the model is not asked yet.

        Args:
            node: Where the study runs: it says in which partition mode devices are.
            device: Which of ``simulation.device.DEVICES`` its devices are taken for.
            metrics: To be moved, besides those that calibrations are judged by.
            serves_whole: Do not cut the load short: for numbers that no measured trial will move.
        """
        self._node = node
        self._device = device
        self._serves_whole = serves_whole
        self._metrics = tuple(dict.fromkeys((*WORDS, *metrics)))
        self._modelled: dict[str, list[dict[str, Any]] | None] = {}
        self._learnt: dict[str, tuple[TrialSpec, Mapping[tuple[Load, str], float]]] = {}
        self._revision = 0
        self._anchors: Anchors | None = None

    def learn(self, spec: TrialSpec, rows: Sequence[Row]) -> None:
        """Take in a complete trial of the study; repetitions of one teach nothing new.

        Args:
            spec: The trial, as it is planned or was run.
            rows: Its rows, as they were measured or are stored.
        """
        if rows and spec.role is None:
            self._learnt[spec.key] = (spec, _numbers(rows, self._metrics))
            for oldest in list(self._learnt)[:-MOST_TRIALS]:
                del self._learnt[oldest]
            self._revision += 1
            self._anchors = None

    @property
    def revision(self) -> int:
        """How often it has learned: predictions stay the same while this does."""
        return self._revision

    @property
    def anchors(self) -> Anchors:
        """What the trials so far say of the model."""
        if self._anchors is None:
            found = (self._paired(key) for key in self._learnt)
            self._anchors = Anchors(numbers=tuple(number for numbers in found for number in numbers))
        return self._anchors

    def rows(self, spec: TrialSpec) -> list[dict[str, Any]] | None:
        """Return what is expected of a trial, laid out as its rows would be; None where the model cannot."""
        said = self._said(spec)
        anchors = self.anchors
        return None if said is None else [self._moved(row, anchors) for row in said]

    def expected_before(
        self, seen: Callable[[int, int], object] = lambda done, total: None
    ) -> list[Expected]:
        """Return each number of the measured trials as it was expected from those learned before it.

        Args:
            seen: Called with how many trials are done, and how many there are.
        """
        told: list[Expected] = []
        before: tuple[Number, ...] = ()
        for done, (key, (spec, measured)) in enumerate(self._learnt.items()):
            seen(done, len(self._learnt))
            found = self._expected(spec, Anchors(numbers=before), measured)
            told += [one for one in found if one.measured is not None]
            before = (*before, *self._paired(key))
        return told

    def expected(self, spec: TrialSpec) -> list[Expected]:
        """Return each number that is expected of a trial; none where the model cannot serve it.

        The interval of the simulated platform's own trials, which none of them moves, is that of its numbers.
        Of a measured trial the metrics are left out that nothing anchors.
        """
        is_sure = spec.platform is Platform.SIMULATED
        found = self._expected(spec, self.anchors, {})
        return [one for one in found if is_sure or one.metric in self.anchors.metrics]

    def _expected(
        self, spec: TrialSpec, anchors: Anchors, measured: Mapping[tuple[Load, str], float]
    ) -> Iterator[Expected]:
        labels = _labels(spec)
        for (load, metric), value in _numbers(self._said(spec) or (), self._metrics).items():
            moved, wide = value * anchors.factor(metric, load), anchors.wide(metric)
            if spec.platform is Platform.SIMULATED and spec.stack_distance is not None:
                wide = intervals.factor(metric, spec.stack_distance)
            yield Expected(
                trial=spec.key,
                load=labels.get(load, str(load[0])),
                metric=metric,
                value=moved,
                low=None if wide is None else moved / wide,
                high=None if wide is None else moved * wide,
                anchored_by=anchors.trials,
                measured=measured.get((load, metric)),
            )

    def _paired(self, key: str) -> Iterator[Number]:
        spec, measured = self._learnt[key]
        predicted = _numbers(self._said(spec) or (), self._metrics)
        return iter(paired(key, predicted, measured))

    def _moved(self, row: dict[str, Any], anchors: Anchors) -> dict[str, Any]:
        load, answer = _load_of(row), answer_of(row)
        metrics = self._metrics if answer is None else (answer,)
        moved = {
            metric: row[metric] * anchors.factor(metric, load)
            for metric in metrics
            if _number(row, metric) is not None
        }
        return row | moved

    def _said(self, spec: TrialSpec) -> list[dict[str, Any]] | None:
        """Return what the model says of a trial, which it is asked once."""
        key = spec.key
        if key not in self._modelled:
            is_known = spec.model.built is not None
            placement = _placed(self._node, spec.devices_wanted) if is_known else None
            self._modelled[key] = None if placement is None else self._served(spec, placement)
        return self._modelled[key]

    def _served(self, spec: TrialSpec, placement: Placement) -> list[dict[str, Any]] | None:
        on_model = _on_model(spec, self._device)
        points = spec.load_points if self._serves_whole else tuple(map(_cut, spec.load_points))
        return _rows(on_model, points, placement)


def device_for(node: Node) -> str | None:
    """Return what a node's devices are modelled as; a CPU's cores as parts of the usual device."""
    return USUAL_DEVICE if node.platform is Platform.CPU else modelled_as(node)


def _numbers(rows: Sequence[Row], metrics: Sequence[str]) -> dict[tuple[Load, str], float]:
    """Return the mean of each metric at each load point; a search over loads counts by its answer alone."""
    found: dict[tuple[Load, str], list[float]] = {}
    for row in rows:
        load, answer = _load_of(row), answer_of(row)
        for metric in metrics if answer is None else (answer,):
            value = _number(row, metric)
            if value is not None:
                found.setdefault((load, metric), []).append(value)
    return {key: statistics.fmean(values) for key, values in found.items()}


def _load_of(row: Row) -> Load:
    """Identify a load point; a second run, from a warm cache, is another one."""
    answer = answer_of(row)
    return (answer,) if answer is not None else (*load_of(row), row.get("keeps_prefix_cache") is True)


def _labels(spec: TrialSpec) -> dict[Load, str]:
    """Return the load points of a trial in words."""
    rows = (
        (point, {name: getattr(point, name) for name in (*LOAD_COLUMNS, "keeps_prefix_cache")})
        for point in spec.load_points
    )
    return {_load_of(row): point.label for point, row in rows}


def _number(row: Row, metric: str) -> float | None:
    """Return a value above 0; None where there is none, in whatever way a row says so."""
    value = row.get(metric)
    is_missing = value is None or type(value).__name__ == "NAType" or not 0 < value < math.inf
    return None if is_missing else float(value)  # type: ignore[arg-type]


def _on_model(spec: TrialSpec, device: str) -> TrialSpec:
    """Return the same trial on the simulated platform."""
    return replace(
        spec,
        engine=EngineSpec(kind="simulated", release=spec.engine.release),
        platform=Platform.SIMULATED,
        modelled_device=device,
        calibration=CPU_START if spec.platform is Platform.CPU else spec.calibration,
    )


def _cut(point: LoadPoint) -> LoadPoint:
    """Return a load point with fewer prompts; a search keeps its steps, which are what it answers in."""
    search = point.user_search
    users = point.users if search is None else search.high
    most = max(MOST_PROMPTS, FEWEST_ROUNDS * (users or 0))
    if search is not None and search.prompts_per_user is not None:
        rounds = min(search.prompts_per_user, max(FEWEST_ROUNDS, MOST_PROMPTS // search.high))
        search = replace(search, prompts_per_user=rounds)
    return replace(point, num_prompts=min(point.num_prompts, most), user_search=search)


def _placed(node: Node, devices: int) -> Placement | None:
    try:
        return Allocator(node).acquire(devices)
    except PlacementError:
        return None


def _rows(
    spec: TrialSpec, points: tuple[LoadPoint, ...], placement: Placement
) -> list[dict[str, Any]] | None:
    """Serve the load points, whole or cut short, on one modelled start; None where the model cannot."""
    short = replace(spec, load_points=points)
    try:
        server = SimulatedEngine().start(short, placement, restart=0, cancelled=never_cancelled)
        client = SimulatedClient(short)
        measure = partial(client.measure, server, restart=0, repeat=0, cancelled=never_cancelled)
        return [
            measured_row(one, placement)
            | {"num_prompts": point.num_prompts, "engine_start_s": server.start_s}
            for point, cut in zip(spec.load_points, short.load_points, strict=True)
            for one in load_search.measurements(cut, measure)
        ]
    except (EngineError, MeasurementError):
        return None

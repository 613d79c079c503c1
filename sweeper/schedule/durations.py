"""How long a trial will take, before it runs: for the order of a schedule and for a plan that people read.

A trial starts an engine and then loads it, so its time has two parts. Both come from a closed form over the
same costs that the simulated platform uses (``simulation.costs``): weights to load, prompts to compute,
tokens to decode at the batch that the load allows, and never less than the arrivals take. No step is
simulated, so a thousand predictions cost milliseconds.

Where trials of the study have finished, each part is scaled by what they really took over what was predicted
for them. Nothing depends on a prediction but the order and the plan: a wrong one costs time, not a result.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sweeper import knobs
from sweeper.kinds import DATASETS, ENGINES
from sweeper.records import (
    MEASURED_ITERATIONS,
    PHASES,
    LoadPoint,
    Measurement,
    Platform,
    TrialResult,
    TrialSpec,
    TrialState,
)
from sweeper.records.plurals import amount
from sweeper.simulation.building import costs_of
from sweeper.simulation.costs import CostModel, Step
from sweeper.simulation.device import USUAL_DEVICE, device_named, partition_of
from sweeper.simulation.settings import resolve
from sweeper.simulation.stacks import parameters_of
from sweeper.workload import load_search
from sweeper.workload.lengths import expected

ASSUMED_START_S = 60.0
"""Start of an engine on a machine without a model; vLLM's CPU build takes 20 to 60 s."""

ASSUMED_PREFILL_TOKENS_PER_S = 2000.0
ASSUMED_DECODE_TOKENS_PER_S = 200.0
"""Speeds on a machine without a model: of the order that a small model reaches on CPU cores."""

_MODELLED = (Platform.SIMULATED, Platform.MI300X, Platform.CUDA)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A trial's time in seconds and what it rests on.

    Attributes:
        start_s: Starts of the engine, warm-ups and stops, over all repeats.
        load_s: Client runs, over all repeats.
        basis: ``modelled``, ``modelled from the peaks of`` another device, ``assumed``, or ``seen: N trials
            of this study``.
    """

    start_s: float
    load_s: float
    basis: str

    @property
    def total_s(self) -> float:
        """How long the trial holds its devices."""
        return self.start_s + self.load_s


class SharedStarts:
    """Which trial of a start that several share is predicted to make it; the others only load."""

    def __init__(self) -> None:
        """Begin with none."""
        self._makers: dict[str, str] = {}

    def share(self, spec: TrialSpec, prediction: Prediction) -> Prediction:
        """Return a trial's prediction without the start, where a trial seen earlier makes that."""
        if spec.start_key is None or self._makers.setdefault(spec.start_key, spec.key) == spec.key:
            return prediction
        return replace(prediction, start_s=0.0)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    start_s: float
    load_s: float


@dataclass(frozen=True, kw_only=True)
class _Limits:
    """Sequences in a step at most, and steps that the host prepares at once."""

    sequences: int
    steps: int


class Predictor:
    """Predicts the trials of one study, and learns from those that finish."""

    def __init__(self, *, measured_device: str | None = USUAL_DEVICE) -> None:
        """Begin without experience.

        Args:
            measured_device: Which of ``simulation.device.DEVICES`` the devices of a measured AMD node are;
                None where nothing models them.
        """
        self._measured_device = measured_device
        self._seen: dict[str, _Seen] = {}
        self._start_factors = _Factors()
        self._load_factors = _Factors()
        self._guesses: dict[str, Prediction] = {}

    def learn(self, spec: TrialSpec, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take in a complete trial.

        Args:
            spec: The trial, as it is planned or was run.
            rows: Its stored rows, the first of which has the phases.
        """
        if not rows:
            return
        first = rows[0]
        seen = _Seen(
            start_s=sum(_seconds(first, name) for name in PHASES),
            load_s=sum(_seconds(row, "measured_s") + _seconds(row, "client_overhead_s") for row in rows),
        )
        known = self._guess(spec)
        self._seen[spec.key] = seen
        is_started = not _seconds(first, "live_trial")
        if known.start_s and seen.start_s and is_started:
            self._start_factors.set(spec.key, seen.start_s / known.start_s)
        if known.load_s and seen.load_s:
            self._load_factors.set(spec.key, seen.load_s / known.load_s)

    def learn_result(self, result: TrialResult) -> None:
        """Take in a trial that just ended; one without numbers teaches nothing."""
        if result.state is TrialState.COMPLETE:
            self.learn(result.spec, [_row(result, measured) for measured in result.measurements])

    def predict(self, spec: TrialSpec) -> Prediction:
        """Predict a trial; it takes no notice of a placement, as equal blocks are equally fast."""
        guess = self._guess(spec)
        if not self._seen:
            return guess
        basis = f"seen: {amount(len(self._seen), 'trial')} of this study"
        own = self._seen.get(spec.key)
        if own is not None:
            return Prediction(start_s=own.start_s, load_s=own.load_s, basis=basis)
        return Prediction(
            start_s=guess.start_s * self._start_factors.middle,
            load_s=guess.load_s * self._load_factors.middle,
            basis=basis,
        )

    def _guess(self, spec: TrialSpec) -> Prediction:
        if spec.key not in self._guesses:
            self._guesses[spec.key] = _first_guess(spec, spec.modelled_device or self._measured_device)
        return self._guesses[spec.key]


class _Factors:
    """By how much trials took longer than guessed, by key; in order, so that the middle is at hand.

    Attributes:
        middle: Their median; 1 where there are none.
    """

    def __init__(self) -> None:
        self._by_key: dict[str, float] = {}
        self._in_order: list[float] = []
        self.middle = 1.0

    def set(self, key: str, factor: float) -> None:
        """Take in a trial's factor, instead of one that it had before."""
        before = self._by_key.get(key)
        if before is not None:
            del self._in_order[bisect.bisect_left(self._in_order, before)]
        self._by_key[key] = factor
        bisect.insort(self._in_order, factor)
        low, high = (len(self._in_order) - 1) // 2, len(self._in_order) // 2
        self.middle = (self._in_order[low] + self._in_order[high]) / 2


def _row(result: TrialResult, measured: Measurement) -> dict[str, Any]:
    return {
        **result.phases,
        "live_trial": result.effective.get("live_trial"),
        "measured_s": measured.measured_s,
        "client_overhead_s": measured.client_overhead_s,
    }


def _seconds(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    return 0.0 if value is None or math.isnan(value) else float(value)


# ---- the first guess ----


def _first_guess(spec: TrialSpec, device: str | None) -> Prediction:
    """Predict a trial on a device that is modelled, or assume; None is one that is not."""
    is_modelled = spec.platform in _MODELLED and spec.model.built is not None
    engine = ENGINES[spec.engine.kind]
    if not is_modelled or device is None or not engine.is_started_by_us:
        start_s = ASSUMED_START_S if engine.is_started_by_us else 0.0
        load_s = sum(map(_assumed_point_s, _loads(spec)))
        return _repeated(spec, start_s=start_s, load_s=load_s, basis="assumed")
    costs, limits = _costs(spec, device)
    fit = costs.calibration
    start_s = fit.boot_s + costs.weight_bytes / fit.load_bytes_per_s
    if spec.warmup_prompts:
        warm = replace(spec.load_points[0], num_prompts=spec.warmup_prompts, request_rate_per_s=None)
        start_s += _point_s(warm, costs, limits, replicas=1)
    for point in _loads(spec):
        if point.warmup_prompts is not None:
            warm = replace(point, num_prompts=point.warmup_prompts)
            each_s = _point_s(warm, costs, limits, replicas=knobs.replicas(spec.assignment))
            start_s += each_s * spec.runs_per_start
    load_s = sum(
        _point_s(point, costs, limits, replicas=knobs.replicas(spec.assignment)) for point in _loads(spec)
    )
    # Of other engines than vLLM nothing is modelled: they are taken to be as fast.
    how = (
        "modelled" if device == USUAL_DEVICE else f"modelled from the peaks of {device_named(device).product}"
    )
    return _repeated(
        spec, start_s=start_s, load_s=load_s, basis=how if engine.takes_vllm_flags else "assumed"
    )


def _loads(spec: TrialSpec) -> Iterator[LoadPoint]:
    """Return the loads of one start, each probe of a search over loads as one of its own."""
    for point in spec.load_points:
        yield from load_search.usual_probes(point)


def _repeated(spec: TrialSpec, *, start_s: float, load_s: float, basis: str) -> Prediction:
    return Prediction(
        start_s=start_s * spec.repeats, load_s=load_s * spec.repeats * spec.runs_per_start, basis=basis
    )


def _assumed_point_s(point: LoadPoint) -> float:
    lengths = expected(point)
    prompt_tokens, output_tokens = lengths.mean_input, lengths.mean_output
    one_s = prompt_tokens / ASSUMED_PREFILL_TOKENS_PER_S + output_tokens / ASSUMED_DECODE_TOKENS_PER_S
    pauses_s = lengths.pauses_s / min(point.max_concurrency or math.inf, lengths.conversations or 1)
    return _rounds(point) * max(lengths.last_arrival_s, point.num_prompts * one_s + pauses_s)


@lru_cache(maxsize=4096)
def _point_s(point: LoadPoint, costs: CostModel, limits: _Limits, *, replicas: int) -> float:
    """Time of one client run: the arrivals or the work, whichever is longer, and the longest answer's rest.

    The work is that of a batch that stays full: all prompts are computed, and every decoded token shares its
    step with a batch's worth of others.
    """
    lengths = expected(point)
    prompt_tokens, output_tokens = lengths.mean_input, lengths.mean_output
    requests = math.ceil(point.num_prompts / replicas)
    users = min(point.max_concurrency or point.num_prompts, lengths.conversations or point.num_prompts)
    places = math.ceil(users / replicas)
    batch = max(1, min(requests, limits.sequences, places))
    tokens = max(1, round(prompt_tokens))
    prefill_s = costs.step_s(
        Step(prefill_tokens=tokens, prefill_pairs=tokens * tokens / 2, prefill_sequences=1, samples=1)
    )
    # One prompt alone cannot fill the device; together they are as fast as their matrix rows allow.
    many = costs.step_s(
        Step(
            prefill_tokens=tokens * batch,
            prefill_pairs=tokens * tokens / 2 * batch,
            prefill_sequences=batch,
            samples=batch,
        )
    )
    context_tokens = prompt_tokens + output_tokens / 2
    step_s, alone_s = (
        _decode_s(costs, limits, sequences=sequences, context_tokens=context_tokens)
        for sequences in (batch, 1)
    )
    work_s = requests / batch * min(many, prefill_s * batch) + requests * output_tokens / batch * step_s
    rest_s = (lengths.longest_output - output_tokens) * alone_s
    # Users pause side by side; while one does, others are served.
    work_s += lengths.pauses_s / users
    return _rounds(point) * (max(lengths.last_arrival_s + output_tokens * alone_s, work_s) + rest_s)


def _decode_s(costs: CostModel, limits: _Limits, *, sequences: int, context_tokens: float) -> float:
    """Time of one token for each of these sequences; the host may prepare several steps at once."""
    step = Step(decodes=sequences, context_tokens=sequences * context_tokens, samples=sequences)
    return float(costs.groups_s(step, steps=limits.steps, groups=1)[0]) / limits.steps


def _rounds(point: LoadPoint) -> int:
    return MEASURED_ITERATIONS if DATASETS[point.dataset].is_batch else 1


def _costs(spec: TrialSpec, device_name: str) -> tuple[CostModel, _Limits]:
    """Return the costs of a step of this trial, and what the scheduler puts into one."""
    settings = resolve(spec)
    mode = spec.partitioning.split("/")[0] if spec.partitioning else None
    costs = costs_of(
        spec,
        settings,
        device=partition_of(mode, device=device_name),
        devices=max(1, spec.devices_wanted // knobs.replicas(spec.assignment)),
        calibration=parameters_of(spec),
    )
    limits = _Limits(
        sequences=int(settings["max_num_seqs"]), steps=int(settings.get("num_scheduler_steps", 1))
    )
    return costs, limits

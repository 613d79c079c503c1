"""What one instance serves within bounds, as the simulated platform expects it.

For each parallel size the highest rate is searched for at which the bounds are kept and no requests pile up.
Simulated latencies and throughputs are off by some factor (``simulation.intervals``), so the search is made
three times: with latencies as they are, at the bad end of their intervals, and at the good end; the rates at
both ends are then off by the factor of the throughput, too.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sweeper import config
from sweeper.clients.simulated import SimulatedClient
from sweeper.engines import never_cancelled
from sweeper.engines.simulated import SimulatedEngine
from sweeper.errors import EngineError, MeasurementError
from sweeper.goals.sizing import Capacity, keeps_up
from sweeper.prepare.node import read_node
from sweeper.prepare.planner import planner_of
from sweeper.prepare.platform import compose_for_platform
from sweeper.records import Constraint, LoadPoint, Placement, TrialSpec, gpus_used
from sweeper.records.plurals import amount, percent
from sweeper.schedule.allocator import Allocator
from sweeper.simulation.intervals import factor
from sweeper.workload import traffic
from sweeper.workload.load_search import highest_step
from sweeper.workload.logs import Log

_RELEASE = "0.32.0"
_SIZES = "tensor_parallel_size"
LOWEST_PER_S = 0.05
STEP = 1.05
STEPS = 212
"""Rates that are tried: from 0.05 to 1500 requests per second, each 5 % above the one before."""

SECONDS = 60.0
FEWEST_PROMPTS = 100
MOST_PROMPTS = 4000
"""A minute of requests at each rate, but no fewer than give a 99th percentile some ground, and no more than
are modelled in about a second."""

Numbers = Mapping[str, float | None]


def rate_of(step: int) -> float:
    """Return the rate of a step, requests per second."""
    return LOWEST_PER_S * STEP**step


def capacity(
    spec: TrialSpec, placement: Placement, *, bounds: Sequence[Constraint], setting: str
) -> Capacity | None:
    """Return what one simulated instance serves within bounds; None where the model cannot start it.

    Args:
        spec: The trial, with one load point whose rate is replaced.
        placement: Its devices.
        bounds: On latencies.
        setting: What to call it.
    """
    try:
        server = SimulatedEngine().start(spec, placement, restart=0, cancelled=never_cancelled)
    except EngineError:
        return None
    client, point = SimulatedClient(spec), spec.load_points[0]
    seen: dict[int, Numbers | None] = {}

    def numbers(step: int) -> Numbers | None:
        if step not in seen:
            measure = partial(client.measure, server, restart=0, repeat=0, cancelled=never_cancelled)
            try:
                seen[step] = measure(_at(point, rate_of(step))).metrics
            except (EngineError, MeasurementError):
                seen[step] = None
        return seen[step]

    distance = spec.stack_distance
    middle, low, high = (
        _highest(numbers, partial(_keeps, bounds, distance=distance, end=end)) for end in (0, 1, -1)
    )
    wide = 1.0 if distance is None else factor("request_throughput_per_s", distance) or 1.0
    gpus = gpus_used(
        len(placement.devices),
        partition_mode=placement.partition_mode,
        partitions_per_gpu=placement.partitions_per_gpu,
    )
    return Capacity(
        setting=setting,
        gpus=gpus,
        per_s=middle,
        low_per_s=low / wide,
        high_per_s=None if high >= rate_of(STEPS - 1) else high * STEP * wide,
        because=f"SIMULATED, a minute of Poisson arrivals at each rate ({MOST_PROMPTS} at most), rates "
        f"{percent(STEP - 1)} apart, never compared with a measured fleet",
    )


def _highest(numbers: Callable[[int], Numbers | None], keeps: Callable[[Numbers, float], bool]) -> float:
    def kept(step: int) -> bool:
        found = numbers(step)
        return found is not None and keeps(found, rate_of(step))

    step = highest_step(STEPS, kept)
    return 0.0 if step is None else rate_of(step)


def _keeps(
    bounds: Sequence[Constraint], found: Numbers, rate_per_s: float, *, distance: float | None, end: int
) -> bool:
    """Return whether a run keeps the bounds at an end of its intervals: 1 the bad one, -1 the good one."""
    if not _keeps_up(found, rate_per_s):
        return False
    for each in bounds:
        value = found.get(each.metric)
        wide = 1.0 if distance is None else factor(each.metric, distance) or 1.0
        if value is None or not value * wide**end <= each.limit:
            return False
    return True


def _keeps_up(found: Numbers, rate_per_s: float) -> bool:
    """Return whether answers came as fast as requests."""
    completed, duration_s, latency_ms = (
        found.get(name) for name in ("completed", "duration_s", "median_e2el_ms")
    )
    if completed is None or duration_s is None or latency_ms is None:
        return False
    return keeps_up(completed=completed, duration_s=duration_s, latency_ms=latency_ms, rate_per_s=rate_per_s)


def _at(point: LoadPoint, rate_per_s: float) -> LoadPoint:
    prompts = min(MOST_PROMPTS, max(FEWEST_PROMPTS, math.ceil(rate_per_s * SECONDS)))
    return replace(point, request_rate_per_s=rate_per_s, num_prompts=prompts)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the simulated platform says.

    Attributes:
        capacities: One per parallel size that fits.
        words: What was simulated.
        left_out: Why the others are not there.
    """

    capacities: tuple[Capacity, ...]
    words: str
    left_out: tuple[str, ...]


def of_simulated(
    overrides: Sequence[str],
    bounds: Sequence[Constraint],
    *,
    input_len: int,
    output_len: int,
    log: Log | None = None,
) -> Found:
    """Return what each parallel size serves within bounds on the simulated platform.

    Args:
        overrides: Of the configuration, such as ``model=llama_3_1_8b`` or ``knobs.max_num_seqs=256``.
        bounds: On latencies.
        input_len: Tokens of a prompt.
        output_len: Tokens of an answer.
        log: Whose requests are sent, each as long as it was, in place of requests that are all alike: the
            longest decide the 99th percentile of any latency.

    Raises:
        ConfigError: One of the overrides is wrong.
    """
    alike = [
        *("workload=random", f"workload.input_len={input_len}", f"workload.output_len={output_len}"),
        "workload.request_rate_per_s=[1]",
    ]
    words = f"prompts of {input_len} and answers of {amount(output_len, 'token')}"
    if log is None:
        return _of_load(alike, words, overrides, bounds)
    longest = max(request.input_tokens + request.output_tokens for request in log.requests)
    words = (
        f"{words} in the mean, as long as those of the log, up to {amount(longest, 'token', ',')} together"
    )
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "lengths.jsonl"
        trace.write_text(traffic.drawn_lengths(log, count=MOST_PROMPTS), encoding="utf-8")
        sent = ("workload.dataset=trace_lengths", f"workload.dataset_path={json.dumps(str(trace))}")
        own = [*("workload.input_len=null", "workload.output_len=null", "workload.ignore_eos=true"), *sent]
        few = f"workload.num_prompts={FEWEST_PROMPTS}"
        return _of_load([alike[0], alike[-1], *own, few], words, overrides, bounds)


def _of_load(
    load: Sequence[str], words: str, overrides: Sequence[str], bounds: Sequence[Constraint]
) -> Found:
    asked = [*_asked(overrides), *load, *overrides]
    composed, choice = compose_for_platform(asked, config_dir=None)
    settings = config.settings(composed, platform=choice.platform)
    planner = planner_of(settings, read_node(settings, choice))
    capacities, left_out = [], []
    jobs = planner.grid()
    for job in jobs:
        size = job.spec.assignment.get(_SIZES, 1)
        setting = job.spec.label if len(jobs) > 1 else f"{_SIZES}={size}"
        if job.refusal is not None:
            left_out.append(f"{setting}: {job.refusal.message}")
            continue
        placement = Allocator(planner.node).acquire(job.spec.devices_wanted)
        one = None if placement is None else capacity(job.spec, placement, bounds=bounds, setting=setting)
        if one is None:
            left_out.append(f"{setting}: the model does not start it")
        else:
            capacities.append(one)
    return Found(
        capacities=tuple(capacities),
        words=f"{planner.model.name}, model of vLLM {planner.engine.release} on {settings.modelled_device}, "
        f"{words}",
        left_out=tuple(left_out),
    )


def _asked(overrides: Sequence[str]) -> list[str]:
    """Return the configuration of the question: each parallel size, unless one is asked for."""
    return [
        "platform=simulated",
        "study.name=size",
        f"engine.release={_RELEASE}",
        *([] if any(_SIZES in word for word in overrides) else [f"space.knobs.{_SIZES}=1,2,4,8"]),
    ]

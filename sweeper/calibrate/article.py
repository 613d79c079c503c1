"""The published figures that the shipped calibration is fitted to, and those that it is judged by.

They are those of "Serving LLMs on AMD MI300X: Best Practices", each with the trial that reproduces it. Cases
1 to 3 are fitted. Four effects follow from no physics of the model; each has one parameter, fitted at one
request rate and judged at the others. All else is validation. A configuration that several figures repeat
counts once, and one that occurs in Cases 1 to 3 is fitted.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sweeper import config
from sweeper.calibrate.figures import FIT, VALIDATION, Figure
from sweeper.calibrate.fitting import BASE
from sweeper.config import Settings
from sweeper.plan.planner import Job, Planner
from sweeper.prepare import model, platform
from sweeper.records import INSTANCES, LoadPoint, Placement, Platform, TrialSpec
from sweeper.schedule.allocator import Allocator
from sweeper.simulation.calibration import METRICS
from sweeper.simulation.settings import resolve
from sweeper.space.space import Series
from sweeper.topology import Node, modelled_mi300x

FITTED = ("case1_chunked_prefill", "case2_sched_steps", "case3_prefix_caching")
"""Experiments whose figures the parameters are fitted to, all together."""

VALIDATED = (
    *("case4_capture_len", "case5_amd_env", "case6_kv_cache_dtype", "case7_tensor_parallel"),
    *("case8_max_num_seqs", "intro_405b", "intro_70b"),
)
"""Experiments whose figures are validation, but for those of ``EFFECTS``."""

BEYOND = (
    *("serving_sharegpt", "serving_random", "serving_locust"),
    *("tgi_vs_vllm_short", "tgi_vs_vllm_long", "tgi_vs_vllm_single", "tgi_vs_vllm_rps"),
)
"""Experiments with figures of others: another release, model, dataset or attention kernel."""


FLOOR = ("kernel_layer_s", "host_step_s")
"""What a step takes however few sequences are in it, of which the article has no run.

0.06 ms a layer and 7.6 ms give 405B in 16 bits on 8 MI300X 52 ms a token, where 50.2 are measured (vLLM
0.6.3.dev116, dstack, 2024-10; ``dstack_405b_bf16_short``). Fitted to the article they become a third
too long."""

FLOOR_WORDS = "one sequence of 405B in 16 bits (dstack)"

HELD = (
    *("gemm_frac", "gemm_half_tokens", "weight_read_frac", "allreduce_s", "eager_layer_s"),
    *FLOOR,
)
"""Parameters that stay as they were when all of ``BASE`` was fitted to the same figures, and the floor.

The first four are physics, which other stacks take over. Moved as well, eager launches double, to 0.75 ms a
layer: a third less of weighted squares, but MLPerf's Llama 2 70B, which serves without graphs, then gets its
first token 67 % too late in place of 1 %. ``gemm_half_tokens`` is 194, between the 176 of AMD's tables and
the 213 to which it moves."""

TOGETHER = tuple(name for name in BASE if name not in HELD)
"""Parameters that are fitted to Cases 1 to 3, all together."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """An effect that follows from no physics of the model, and the few figures that its size is taken from.

    Attributes:
        parameter: The one parameter.
        experiment: Where the figures are.
        series: Their series; empty for all that are not fitted already.
        request_rate_per_s: The one rate.
        words: The figures, for a reader.
    """

    parameter: str
    experiment: str
    series: tuple[str, ...] = ()
    request_rate_per_s: float = 1000.0
    words: str

    def takes(self, *, experiment: str, series: str, point: LoadPoint) -> bool:
        """Whether its size is taken from this figure."""
        return (
            experiment == self.experiment
            and (not self.series or series in self.series)
            and point.request_rate_per_s == self.request_rate_per_s
        )


EFFECTS = (
    Effect(parameter="capture_s", experiment="case4_capture_len", words="Case 4 at 1000 QPS"),
    Effect(
        parameter="channels_frac",
        experiment="case5_amd_env",
        series=("tuned_hw",),
        words="Case 5 at 1000 QPS",
    ),
    Effect(
        parameter="fp8_kv_frac",
        experiment="case6_kv_cache_dtype",
        series=("tuned_kv_fp8",),
        words="Case 6 at 1000 QPS",
    ),
    Effect(
        parameter="fp8_gemm_frac",
        experiment="intro_405b",
        series=("vllm_this_guide",),
        words="the introduction's 405B FP8 at 1000 QPS",
    ),
)
"""In the order in which they are fitted, after all else."""

_REMARKS = {
    ("default", 16.0): "the article's default serves fewer requests/s at 16 QPS than at 32 and 1000, and its "
    "first tokens come later; a steady server cannot do that, a cold first run would"
}


def article_figures() -> list[Figure]:
    """Return every figure of the article that the model can be asked about, each configuration once.

    Raises:
        StoreError: A ``published.csv`` cannot be read.
    """
    seen: dict[str, Figure] = {}
    for name in (*FITTED, *VALIDATED):
        for figure in experiment_figures(name):
            seen.setdefault(identity(figure), figure)
    return list(seen.values())


def identity(figure: Figure) -> str:
    """Describe what was run and read: equal where two configurations resolve to the same settings."""
    return json.dumps(
        [
            sorted(resolve(figure.spec).items()),
            figure.spec.model.name,
            figure.spec.assignment.get(INSTANCES, 1),
            figure.point.request_rate_per_s,
            figure.point.keeps_prefix_cache,
            figure.metric,
        ],
        default=str,
    )


def experiment_figures(name: str, *, metrics: Collection[str] = tuple(METRICS)) -> list[Figure]:
    """Return the published figures of one experiment, in the order of its series."""
    from sweeper import published

    frame = published.load(name)
    frame = frame[frame["metric"].isin(list(metrics))]
    found = []
    for spec, placement, series in modelled_series(name):
        for row in frame[frame["series"] == series.published].to_dict("records"):
            point = _point_of(spec, series, row)
            if point is not None:
                found.append(_figure(name, spec, placement, series, point, row))
    return found


def modelled_series(name: str) -> Iterator[tuple[TrialSpec, Placement, Series]]:
    """Return each series of an experiment that the model can be asked about, with its trial."""
    space = composed(name).space
    order = [series.name for series in space.series]
    for job, placement in jobs(name):
        for series in sorted(job.spec.series, key=order.index):
            yield job.spec, placement, space.named(series)


def jobs(name: str) -> list[tuple[Job, Placement]]:
    """Return the trials of an experiment that the modelled node can run, each with its block of devices."""
    settings = composed(name)
    node = _node(settings)
    placed = [
        (job, Allocator(node).acquire(job.spec.devices_wanted)) for job in _planner(settings, node).grid()
    ]
    return [(job, placement) for job, placement in placed if placement is not None and job.refusal is None]


@cache
def composed(name: str) -> Settings:
    """Compose an experiment for the simulated platform."""
    plain, choice = platform.compose_for_platform(
        [f"+experiment={name}", f"platform={Platform.SIMULATED}"], config_dir=None
    )
    return config.settings(plain, platform=choice.platform)


def _planner(settings: Settings, node: Node) -> Planner:
    """Make the planner of an experiment on the modelled node."""
    return Planner(
        study=settings.name,
        trials_folder="",
        space=settings.space,
        engine=replace(settings.engine, kind="simulated"),
        model=model.provide_model(settings),
        platform=Platform.SIMULATED,
        node=node,
        accelerator="rocm",
        load_points=settings.load_points,
        client=settings.client,
        warmup_prompts=settings.warmup_prompts,
    )


def _node(settings: Settings) -> Node:
    mode, memory_mode = settings.insisted
    return modelled_mi300x(mode or "SPX", memory_mode or "NPS1")


def _point_of(spec: TrialSpec, series: Series, row: Mapping[Hashable, Any]) -> LoadPoint | None:
    """Find the load point of a published row: same rate and, where the row gives them, prompts and length."""
    for point in spec.load_points:
        given = {"request_rate_per_s": row["request_rate_per_s"]}
        given |= {name: row[name] for name in ("num_prompts", "input_len") if name in row}
        is_same = all(
            getattr(point, name) == (None if value != value else value) for name, value in given.items()
        )
        if is_same and point.keeps_prefix_cache == (series.run == "second"):
            return point
    return None


def _figure(
    name: str,
    spec: TrialSpec,
    placement: Placement,
    series: Series,
    point: LoadPoint,
    row: Mapping[Hashable, Any],
) -> Figure:
    effects = [e for e in EFFECTS if e.takes(experiment=name, series=series.name, point=point)]
    is_fit = name in FITTED or bool(effects)
    rate = point.request_rate_per_s or 0.0
    return Figure(
        experiment=name,
        series=series.name,
        metric=row["metric"],
        value=float(row["value"]),
        low=_number(row["low"]),
        high=_number(row["high"]),
        point=point,
        spec=spec,
        placement=placement,
        role=FIT if is_fit else VALIDATION,
        parameter=effects[0].parameter if effects else None,
        remark=_REMARKS.get((series.name, rate), "") if name in FITTED else "",
    )


def _number(value: float) -> float | None:
    return None if value != value else float(value)

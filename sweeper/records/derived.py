"""Metrics that are worked out from stored columns whenever they are read: money, energy, start-up.

None of them is stored: a price may be named or change long after a study was measured, and every study that
was measured before there were these metrics has them too. So no price is part of a trial's identity. What is
missing stays None: a model of a device knows no power, and an endpoint that runs already was not started.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.records import metrics
from sweeper.records.metrics import BY_NAME, METRIC_NAMES, STEADY_BY_NAME, Metric
from sweeper.records.trial import gpus_of_row

COST_OF_OUTPUT = "cost_per_million_output_tokens"
COST_OF_ALL = "cost_per_million_total_tokens"
ENERGY = "energy_per_output_token_j"
START = "mean_engine_start_s"
LOSS = "accuracy_loss"
LOSS_HIGH = "accuracy_loss_high"

COSTS: Mapping[str, str] = {
    COST_OF_OUTPUT: "output_throughput_tok_per_s",
    COST_OF_ALL: "total_throughput_tok_per_s",
}
"""Costs, to the stored rate of what is paid for."""

_OUTPUT = BY_NAME["output_throughput_tok_per_s"]
_TOTAL = BY_NAME["total_throughput_tok_per_s"]

DERIVED: tuple[Metric, ...] = (
    Metric(
        name=COST_OF_OUTPUT,
        unit="currency",
        description="Price of the GPUs held (study.price_per_gpu_hour, or --price) over the output tokens "
        "made in that time, times a million; null without a price",
        is_higher_better=False,
        title="Cost per million output tokens",
        words="cost per million output tokens",
        benchmarks=_OUTPUT.benchmarks,
    ),
    Metric(
        name=COST_OF_ALL,
        unit="currency",
        description="The same over input and output tokens",
        is_higher_better=False,
        title="Cost per million tokens, input and output",
        words="cost per million tokens",
        benchmarks=_TOTAL.benchmarks,
    ),
    Metric(
        name=ENERGY,
        unit="J",
        description="gpu_power_w over output tokens per second: energy of the GPUs alone, without host and "
        "cooling; null where the platform tells no power (simulated, cpu) and for parts of a GPU, which have "
        "none of their own",
        is_higher_better=False,
        title="Energy per output token (J)",
        words="energy per output token",
        benchmarks=_OUTPUT.benchmarks,
    ),
    Metric(
        name=START,
        unit="s",
        description="engine_start_s over the starts of the trial: launch until ready, with what was imported "
        "for earlier trials and kept; null where nothing was started for this trial alone",
        is_higher_better=False,
        title="Start of the engine (s)",
        words="engine start",
    ),
)
"""Every such metric."""

ACCURACY = (
    Metric(
        name="accuracy",
        unit="fraction",
        description="Share of right answers",
        is_higher_better=True,
        title="Right answers (share)",
        words="right answers",
    ),
    Metric(
        name="accuracy_low",
        unit="fraction",
        description="Lower end of its 95 % interval",
        is_higher_better=True,
        title="Right answers, lower end of 95 % (share)",
        words="right answers, at least",
    ),
)
"""What a trial is judged by beside its loads; stored, the same in each of its rows."""

LOSSES = (
    Metric(
        name=LOSS,
        unit="fraction",
        description="Share of right answers of the setting that changes the fewest knobs, less that of this "
        "one, question by question; worked out when it is read, null where both were not asked the same",
        is_higher_better=False,
        title="Right answers lost against the default (share)",
        words="right answers lost",
    ),
    Metric(
        name=LOSS_HIGH,
        unit="fraction",
        description="Upper end of the 95 % interval of accuracy_loss, Newcombe's for pairs; 0 for the "
        "default itself",
        is_higher_better=False,
        title="Right answers lost against the default, upper end of 95 % (share)",
        words="right answers lost, at most",
    ),
)
"""The same beside the study's default; worked out when it is read, the same in each of a trial's rows."""

OF_QUESTIONS = frozenset(metric.name for metric in (*ACCURACY, *LOSSES))
"""Names of what is known only where an engine is asked questions."""

WORKED_OUT: Mapping[str, Metric] = {metric.name: metric for metric in (*DERIVED, *LOSSES)}
"""Every metric that no row of the store holds, by its name."""

DERIVED_BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in DERIVED}

_TITLES = {metric.name: metric.title for metric in (*DERIVED, *ACCURACY, *LOSSES)}

QUANTITY_NAMES = (*METRIC_NAMES, *STEADY_BY_NAME, *_TITLES)
"""What an objective or a bound can be about."""

READ_COLUMNS = (
    *COSTS.values(),
    *("gpu_power_w", "engine_start_s", "live_trial", "restart"),
    *("devices", "parents", "partition_mode", "partitions_per_gpu"),
)
"""Stored columns that they are worked out from."""


def value(
    name: str, row: Mapping[str, Any], *, starts: int = 1, price_per_gpu_hour: float | None = None
) -> float | None:
    """Work one of them out.

    Args:
        name: One of ``DERIVED_BY_NAME``.
        row: A row of the store, with ``READ_COLUMNS``; missing values are None or NaN.
        starts: Engine starts of the trial, over which ``engine_start_s`` is a sum.
        price_per_gpu_hour: What a GPU costs by the hour, in any currency; None leaves costs unknown.

    Returns:
        In the metric's unit; None where something that it needs is not known.
    """
    if name in COSTS:
        return _cost(row, COSTS[name], price_per_gpu_hour)
    return _energy_j(row) if name == ENERGY else _start_s(row, starts)


def cost(price_per_gpu_hour: float, *, gpus: float, per_s: float, many: int = 1_000_000) -> float:
    """Return what so ``many`` of something cost, in the price's currency.

    Args:
        price_per_gpu_hour: What a GPU costs by the hour.
        gpus: Held for it.
        per_s: How many of it they serve in a second, above 0.
        many: Of how many.
    """
    return price_per_gpu_hour * gpus / 3600 / per_s * many


def filled(
    name: str, rows: Sequence[Mapping[str, Any]], *, price_per_gpu_hour: float | None = None
) -> Sequence[Mapping[str, Any]]:
    """Return the rows of one trial with a metric of ``DERIVED`` worked out; any other is left as it is."""
    if name not in DERIVED_BY_NAME:
        return rows
    starts = _starts(rows)
    return [
        row
        if _number(row.get(name)) is not None
        else {**row, name: value(name, row, starts=starts, price_per_gpu_hour=price_per_gpu_hour)}
        for row in rows
    ]


def is_reported_at(name: str, dataset: str) -> bool:
    """Return whether a load point that sends a dataset can have a number of a metric, stored or not."""
    return all(metrics.is_reported_at(each, dataset) for each in (COSTS.get(name, name), *_basis(name)))


def title_of(name: str) -> str:
    """Return the title of a column's chart and axis; a column that is no metric keeps its name."""
    return _TITLES[name] if name in _TITLES else metrics.title_of(name)


def _basis(name: str) -> tuple[str, ...]:
    return (_OUTPUT.name,) if name == ENERGY else ()


def _cost(row: Mapping[str, Any], rate: str, price_per_gpu_hour: float | None) -> float | None:
    per_s = _number(row.get(rate))
    if price_per_gpu_hour is None or per_s is None or per_s <= 0 or row.get("devices") is None:
        return None
    return cost(price_per_gpu_hour, gpus=gpus_of_row(row), per_s=per_s) or None


def _energy_j(row: Mapping[str, Any]) -> float | None:
    power_w, per_s = _number(row.get("gpu_power_w")), _number(row.get(_OUTPUT.name))
    if power_w is None or per_s is None or per_s <= 0 or not _has_whole_gpus(row):
        return None
    return power_w / per_s


def _has_whole_gpus(row: Mapping[str, Any]) -> bool:
    """Return whether a trial held all of each of its GPUs: a part has no power of its own."""
    if row.get("devices") is None or row.get("parents") is None:
        return False
    return math.isclose(gpus_of_row(row), len(set(row["parents"])))


def _start_s(row: Mapping[str, Any], starts: int) -> float | None:
    spent_s, place = _number(row.get("engine_start_s")), _number(row.get("live_trial"))
    # 0 s is an endpoint that ran already; a later trial of a shared start waited for a change of limits only.
    return None if not spent_s or place else spent_s / starts


def _starts(rows: Sequence[Mapping[str, Any]]) -> int:
    known = [number for row in rows if (number := _number(row.get("restart"))) is not None]
    return 1 + int(max(known, default=0))


def _number(value: Any) -> float | None:
    # pandas gives NaN or NA for a null cell.
    if not isinstance(value, numbers.Real) or not math.isfinite(float(value)):
        return None
    return float(value)

"""What a study has to know for objectives and bounds on money, energy and start-up: refused before it runs.

A study that lacks a price, or a platform that tells power, would run to its end without an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from sweeper.errors import ConfigError
from sweeper.kinds import CLIENTS, ENGINES
from sweeper.records import Constraint, Objective, Platform
from sweeper.records.derived import COSTS, DERIVED_BY_NAME, ENERGY, OF_QUESTIONS, START
from sweeper.records.metrics import STEADY_BY_NAME

Quantity = TypeVar("Quantity", Objective, Constraint)

_TELL_POWER = (Platform.MI300X, Platform.CUDA)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a study.

    Attributes:
        price_per_gpu_hour: ``study.price_per_gpu_hour``.
        platform: What is measured.
        engine: ``engine.kind``.
        client: ``client.kind``.
        is_live: Settings may share the start of an engine.
        asks_questions: Engines are asked questions before their loads.
    """

    price_per_gpu_hour: float | None
    platform: Platform
    engine: str
    client: str
    is_live: bool
    asks_questions: bool = False


def known(quantities: Sequence[Quantity], study: Known) -> tuple[Quantity, ...]:
    """Return objectives or bounds, those that are a cost with the study's price.

    Raises:
        ConfigError: One of them can never be known in this study.
    """
    return tuple(_known(quantity, study) for quantity in quantities)


def _known(quantity: Quantity, study: Known) -> Quantity:
    metric = quantity.metric
    if metric in OF_QUESTIONS and not study.asks_questions:
        raise ConfigError(
            f"objective: asks for {metric}, and nothing is asked of the engine; expected accuracy.path or "
            "accuracy.task, and an engine that is started. Set one of them."
        )
    if metric in STEADY_BY_NAME and not CLIENTS[study.client].reports_requests:
        tell = " or ".join(name for name in CLIENTS if CLIENTS[name].reports_requests)
        raise ConfigError(
            f"objective: asks for {metric}, and client {study.client} tells no times of single requests, of "
            f"which the steady part of a run is found; expected client {tell}. Choose one of them, or take "
            f"{metric.removeprefix('steady_')}."
        )
    if metric not in DERIVED_BY_NAME:
        return quantity
    if quantity.per is not None:
        raise ConfigError(
            f"objective: divides {metric} by {quantity.per.upper()}; expected it as it is, since it counts "
            "all GPUs of a setting already. Leave per out."
        )
    if metric in COSTS:
        return _priced(quantity, study)
    if metric == ENERGY:
        _check_tells_power(study)
    if metric == START:
        _check_starts(study)
    return quantity


def _priced(quantity: Quantity, study: Known) -> Quantity:
    if study.price_per_gpu_hour is None:
        raise ConfigError(
            f"objective: asks for {quantity.metric}, and study.price_per_gpu_hour is not given; expected "
            "what a GPU costs by the hour. Set study.price_per_gpu_hour=2.50, in any currency."
        )
    return replace(quantity, price_per_gpu_hour=study.price_per_gpu_hour)


def _check_tells_power(study: Known) -> None:
    is_told = study.platform in _TELL_POWER
    if not is_told or not ENGINES[study.engine].has_devices:
        where = f"engine.kind={study.engine}" if is_told else f"platform {study.platform}"
        raise ConfigError(
            f"objective: asks for {ENERGY}, and {where} tells no power; expected an engine that is started "
            f"on platform {' or '.join(_TELL_POWER)}. Choose another metric there."
        )


def _check_starts(study: Known) -> None:
    if not ENGINES[study.engine].is_started_by_us:
        raise ConfigError(
            f"objective: asks for {START}, and engine.kind={study.engine} runs already; expected an engine "
            "that is started here. Choose another metric."
        )
    if study.is_live:
        raise ConfigError(
            f"objective: asks for {START}, and engine.live lets settings share a start; expected a start for "
            "each. Set engine.live=false."
        )

"""What is better and what must be kept, checked: the objectives and the constraints of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.config.checks import check_choice
from sweeper.errors import ConfigError, nearest
from sweeper.kinds import DATASETS
from sweeper.records import (
    GPU,
    QUANTITY_NAMES,
    SEARCH_SLOS,
    Constraint,
    LoadPoint,
    Objective,
    RateSearch,
    UserSearch,
)
from sweeper.records.metrics import FEWEST_STEADY_REQUESTS, STEADY_BY_NAME
from sweeper.records.plurals import amount

_DIRECTIONS = ("maximize", "minimize")
_LOAD_KEYS: Mapping[str, tuple[str, str]] = {
    "request_rate_per_s": ("rate", "none (no load point has a rate)"),
    "max_concurrency": ("number of users or requests at once", "none (no load point has a limit)"),
}
"""What an entry may single a load point out by: in words, and what is said where no load point has it."""
_SEARCHES = {
    RateSearch.answer: (RateSearch.key, "the rate"),
    UserSearch.answer: (UserSearch.key, "users"),
}


def objectives(
    given: Mapping[str, Mapping[str, Any]], load_points: Sequence[LoadPoint]
) -> tuple[Objective, ...]:
    """Return the entries of ``objective`` that say what is better.

    Args:
        given: All entries as composed.
        load_points: Those of the study, one of which an entry may single out.

    Raises:
        ConfigError: There is none, or an entry is wrong.
    """
    wanted = {name: item for name, item in given.items() if not _is_bound(item)}
    if not wanted:
        raise ConfigError(
            "objective: has nothing to make better; expected an entry without at_most and at_least, "
            "such as objective=throughput."
        )
    found = {
        name: Objective(direction=_direction(name, item), **_quantity(name, item, load_points))
        for name, item in wanted.items()
    }
    _check_distinct({name: objective.name for name, objective in found.items()})
    return tuple(found.values())


def constraints(
    given: Mapping[str, Mapping[str, Any]], load_points: Sequence[LoadPoint]
) -> tuple[Constraint, ...]:
    """Return the entries of ``objective`` that say what must be kept.

    Args:
        given: All entries as composed.
        load_points: As in ``objectives``.

    Raises:
        ConfigError: An entry is wrong.
    """
    found = {
        name: Constraint(**_limit(name, item), **_quantity(name, item, load_points))
        for name, item in given.items()
        if _is_bound(item)
    }
    _check_distinct({name: constraint.name for name, constraint in found.items()})
    return tuple(found.values())


def _is_bound(item: Mapping[str, Any]) -> bool:
    return item["at_most"] is not None or item["at_least"] is not None


def _direction(name: str, item: Mapping[str, Any]) -> str:
    direction = item["direction"] or "maximize"
    check_choice(f"objective.{name}.direction", direction, _DIRECTIONS)
    return str(direction)


def _limit(name: str, item: Mapping[str, Any]) -> dict[str, Any]:
    where = f"objective.{name}"
    if item["at_most"] is not None and item["at_least"] is not None:
        raise ConfigError(f"{where}: has at_most and at_least; expected one bound. Write two entries.")
    if item["direction"] is not None:
        raise ConfigError(
            f"{where}: has a direction and a bound; expected one of them: a bound is kept, not made better. "
            "Write two entries, one for each."
        )
    is_upper = item["at_most"] is not None
    key = "at_most" if is_upper else "at_least"
    if not abs(item[key]) < float("inf"):
        raise ConfigError(f"{where}.{key}: is {item[key]}; expected a number.")
    return {"limit": item[key], "is_upper": is_upper}


def _quantity(name: str, item: Mapping[str, Any], load_points: Sequence[LoadPoint]) -> dict[str, Any]:
    """Check what is looked at: the metric, where it is taken, and what it is divided by."""
    where, metric = f"objective.{name}", item["metric"]
    if metric not in QUANTITY_NAMES:
        raise ConfigError(
            f"{where}.metric: '{metric}' is not a metric.{nearest(metric, QUANTITY_NAMES)} "
            "See docs/columns.md for all."
        )
    if item["per"] is not None:
        check_choice(f"{where}.per", item["per"], (GPU,))
    load = {key: item[key] for key in _LOAD_KEYS}
    for key, value in load.items():
        _check_is_sent(f"{where}.{key}", key, value, load_points)
    counted = _counted(load, load_points)
    if not counted and any(value is not None for value in load.values()):
        told = " and ".join(f"{key} {value:g}" for key, value in load.items() if value is not None)
        raise ConfigError(
            f"{where}: names {told}, which no load point has together; expected one of the load points "
            f"{'; '.join(point.label for point in load_points)}. Leave one of them out."
        )
    _check_is_measured(where, metric, counted, has_load=any(load.values()), load_points=load_points)
    return {"metric": metric, "per": item["per"], **load}


def _counted(load: Mapping[str, Any], load_points: Sequence[LoadPoint]) -> list[LoadPoint]:
    """Return the load points at loads of their own that an entry looks at."""
    return [
        point
        for point in load_points
        if point.search is None and all(value in (None, getattr(point, key)) for key, value in load.items())
    ]


def _check_is_sent(where: str, key: str, value: float | None, load_points: Sequence[LoadPoint]) -> None:
    known = {getattr(point, key) for point in load_points if point.search is None} - {None}
    if value is None or value in known:
        return
    words, none = _LOAD_KEYS[key]
    numbers = ", ".join(f"{number:g}" for number in sorted(known)) or none
    raise ConfigError(
        f"{where}: is {value:g}, and no load point has that {words}; expected one of {numbers}. Choose one, "
        f"or add it to workload.{key}."
    )


def _check_is_measured(
    where: str,
    metric: str,
    counted: Sequence[LoadPoint],
    *,
    has_load: bool,
    load_points: Sequence[LoadPoint],
) -> None:
    """Refuse what no load point will ever report: such a study would run to its end without an answer."""
    if metric in SEARCH_SLOS:
        _check_is_searched(where, metric, has_load=has_load, load_points=load_points)
    searched = [point.search for point in load_points if point.search is not None]
    if metric not in SEARCH_SLOS and len(searched) == len(load_points):
        answers = " or ".join(dict.fromkeys(search.answer for search in searched))
        raise ConfigError(
            f"{where}.metric: is {metric}, and every load point searches for the heaviest load; expected "
            f"{answers}, or a load point that is measured as it is. Change the metric, take the entry out "
            f"(~{where}), or add such a load point to workload.points."
        )
    _check_client_tells(where, metric, {point.dataset for point in counted})
    if metric in STEADY_BY_NAME:
        for point in counted:
            _check_has_steady_part(where, metric, point)
    _check_answers_have_gaps(where, metric, counted)
    if metric == "request_goodput_per_s" and not all(point.goodput_ms for point in counted):
        raise ConfigError(
            f"{where}.metric: is request_goodput_per_s, and workload.goodput is empty; expected what a good "
            "request keeps, such as workload.goodput.ttft_ms=2000."
        )


def _check_answers_have_gaps(where: str, metric: str, counted: Sequence[LoadPoint]) -> None:
    """Refuse the time between tokens of answers that are one token long, as those of a classifier are."""
    latency = metric.removesuffix("_ms").rpartition("_")[2]
    short = [point for point in counted if point.output_len == 1 and DATASETS[point.dataset].needs_server]
    if latency in ("tpot", "itl") and metric.endswith("_ms") and short:
        raise ConfigError(
            f"{where}.metric: is {metric}, and load point '{short[0].label}' asks for answers of one token, "
            "which have no time between tokens; expected workload.output_len of 2 or more, or a metric such "
            f"as {metric.replace(f'_{latency}_', '_ttft_')}. Change one of the two, or take the entry out "
            f"(~{where})."
        )


def _check_has_steady_part(where: str, metric: str, point: LoadPoint) -> None:
    """Refuse the steady part of a run that can have none: each of its requests begins or ends the load."""
    kind = DATASETS[point.dataset]
    has_load = point.request_rate_per_s is not None or point.max_concurrency is not None
    has_times = point.ramp is not None or kind.times is not None or kind.conversations is not None
    if not kind.needs_server:
        return  # It tells no such number and does not count.
    if point.num_prompts < FEWEST_STEADY_REQUESTS:
        why = f"sends {amount(point.num_prompts, 'prompt')}, too few for a steady part"
        expected = f"{FEWEST_STEADY_REQUESTS} or more, and better ten times as many"
    elif not has_load and not has_times:
        why = "sends all of them at once, so that the load is never steady"
        expected = "a request_rate_per_s, or users (max_concurrency)"
    else:
        return
    raise ConfigError(
        f"{where}.metric: is {metric}, and load point '{point.label}' {why}; expected {expected}. Set it in "
        f"workload, name another load point in {where}, or take {metric.removeprefix('steady_')}."
    )


def _check_is_searched(where: str, metric: str, *, has_load: bool, load_points: Sequence[LoadPoint]) -> None:
    if has_load or not any(p.search is not None and p.search.answer == metric for p in load_points):
        key, over = _SEARCHES[metric]
        raise ConfigError(
            f"{where}.metric: is {metric}, which a search over {over} finds; expected {key}, and no "
            f"request_rate_per_s or max_concurrency here. Set {key} with low, high, resolution and bounds."
        )


def _check_client_tells(where: str, metric: str, datasets: set[str]) -> None:
    """Refuse what no benchmark of these load points reports."""
    is_of_batches = "_batch_latency_" in metric
    is_of_requests = metric.endswith("_ms") or metric in STEADY_BY_NAME
    if is_of_batches:
        tells = any(DATASETS[name].is_batch for name in datasets)
    else:
        tells = not is_of_requests or any(DATASETS[name].needs_server for name in datasets)
    if datasets and not tells:
        expected = "dataset latency" if is_of_batches else "a dataset that is sent to a server"
        raise ConfigError(
            f"{where}.metric: is {metric}, which dataset {' and '.join(sorted(datasets))} does not tell; "
            f"expected {expected}, or another metric. Change one of the two."
        )


def _check_distinct(names: Mapping[str, str]) -> None:
    for entry, name in names.items():
        other = next(e for e, n in names.items() if n == name)
        if other != entry:
            raise ConfigError(f"objective.{entry}: asks for {name}, as objective.{other} does. Remove one.")

"""What is sent and what sends it, checked: the client, and the load points that are named one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sweeper.config import client_arguments
from sweeper.config.checks import check_choice, check_positive, nonempty
from sweeper.config.schema import MaxRateConfig, MaxUsersConfig
from sweeper.errors import ConfigError, nearest
from sweeper.kinds import CLIENTS, DATASETS
from sweeper.records import (
    GOODPUT_BOUNDS,
    ClientSpec,
    LoadPoint,
    RateSearch,
    UserSearch,
)
from sweeper.records.metrics import REQUEST_LATENCIES, STEADY_LATENCIES, statistic_names
from sweeper.records.plurals import amount

# Numbers and lists of numbers, which are checked with those of the workload itself.
_NUMBERS = ("num_prompts", "input_len", "output_len", "max_concurrency", "request_rate_per_s")
_SINGLE: Mapping[str, tuple[type, ...]] = {
    "dataset": (str,),
    "dataset_path": (str, type(None)),
    "range_ratio": (int, float),
    "ignore_eos": (bool,),
    "client_seed": (int,),
    "max_rate": (dict, type(None)),
    "max_users": (dict, type(None)),
    "options": (dict,),
    "prompts_per_user": (int, type(None)),
    "burstiness": (int, float),
    "ramp_up": (dict, type(None)),
    "endpoint": (str,),
    "sampling": (dict,),
    "extra_body": (dict,),
}
_RATE_SEARCH: Mapping[str, Any] = asdict(MaxRateConfig())
_USER_SEARCH: Mapping[str, Any] = asdict(MaxUsersConfig())
_FEWEST_STEADY = 40
"""Prompts of a run with users, of whose answers three quarters still come while all are at work."""
POINT_KEYS = (*_NUMBERS, *_SINGLE)
"""Keys of the workload that one of its points may replace."""


def variants(points: list[Any] | None) -> list[Mapping[str, Any]]:
    """Check what each of ``workload.points`` replaces in the workload.

    Args:
        points: Mappings from key to value, as composed; None where there are none.

    Returns:
        The same; without points a single mapping that replaces nothing.

    Raises:
        ConfigError: A point is no mapping, or sets what is not a load point's, or to a value of another kind.
    """
    if points is None:
        return [{}]
    for place, point in enumerate(nonempty("workload.points", points)):
        where = f"workload.points[{place}]"
        if not isinstance(point, dict):
            raise ConfigError(f"{where}: is {point!r}; expected such as {{input_len: 128, output_len: 1}}.")
        for key, value in point.items():
            if key not in POINT_KEYS:
                raise ConfigError(
                    f"{where}: '{key}' is not part of a load point; expected one of {', '.join(POINT_KEYS)}."
                    f"{nearest(str(key), POINT_KEYS)}"
                )
            _check_single(f"{where}.{key}", value, _SINGLE.get(key))
    return points


def goodput(given: Mapping[str, float], dataset: str) -> tuple[tuple[str, float], ...]:
    """Check what a request has to keep to count as good.

    Args:
        given: ``workload.goodput`` as composed: latency to milliseconds.
        dataset: What the load point sends.

    Raises:
        ConfigError: A latency that goodput cannot bound, a bound is not above 0, or no client counts.
    """
    for name, bound in given.items():
        check_choice("workload.goodput", name, GOODPUT_BOUNDS)
        check_positive(f"workload.goodput.{name}", bound)
    if given and not DATASETS[dataset].needs_server:
        raise ConfigError(
            f"workload.goodput: is given with dataset {dataset}, which knows no single requests; expected a "
            "dataset that is sent to a server. Remove it."
        )
    return tuple(sorted(given.items()))


def searches(workload: Mapping[str, Any]) -> dict[str, Any]:
    """Check a search for the heaviest load that keeps its bounds, by rate or by users.

    Args:
        workload: The workload, with what one of its points replaces.

    Returns:
        Arguments of ``LoadPoint``: ``rate_search`` and ``user_search``, each None for no search.

    Raises:
        ConfigError: Range, resolution or bounds are wrong, the load is given already, or both are.
    """
    if workload["max_rate"] is not None and workload["max_users"] is not None:
        raise ConfigError(
            "workload: has max_rate and max_users; expected one of them for a load point. Put each into "
            "one of workload.points."
        )
    return {
        "rate_search": _rate_search(workload["max_rate"], workload),
        "user_search": _user_search(workload["max_users"], workload),
    }


def _rate_search(given: Mapping[str, Any] | None, workload: Mapping[str, Any]) -> RateSearch | None:
    if given is None:
        return None
    where = RateSearch.key
    given = _checked_search(where, given, usual=_RATE_SEARCH, kinds=(int, float))
    has_rate = workload["request_rate_per_s"] not in (None, [None])
    if has_rate or not DATASETS[workload["dataset"]].needs_server:
        raise ConfigError(
            f"{where}: is given for dataset {workload['dataset']} with request_rate_per_s "
            f"{workload['request_rate_per_s']}; expected a dataset that is sent to a server, and null: the "
            "search chooses the rates. Set it to null, or put max_rate into one of workload.points."
        )
    _check_runs_once(where, workload)
    return RateSearch(
        low=float(given["low"]),
        high=float(given["high"]),
        resolution=float(given["resolution"]),
        bounds=_bounds_of(given),
    )


def _user_search(given: Mapping[str, Any] | None, workload: Mapping[str, Any]) -> UserSearch | None:
    if given is None:
        return None
    where = UserSearch.key
    given = _checked_search(where, given, usual=_USER_SEARCH, kinds=(int,))
    for key in ("request_rate_per_s", "max_concurrency", "ramp_up"):
        if workload[key] not in (None, [None]):
            raise ConfigError(
                f"{where}: is given with {key} {workload[key]}; expected null: the search chooses the users, "
                "who send as fast as they are answered. Set it to null, or put max_users into one of "
                "workload.points."
            )
    kind = DATASETS[workload["dataset"]]
    if not kind.needs_server or kind.times is not None:
        why = "which has a time for each request" if kind.needs_server else "which is sent to no server"
        raise ConfigError(
            f"{where}: is given for dataset {kind.name}, {why}; expected one that users send. Leave it out, "
            "or choose another workload.dataset."
        )
    _check_runs_once(where, workload)
    each = workload["prompts_per_user"]
    steady = [metric for metric in given["bounds"] if metric in STEADY_LATENCIES]
    if steady and each is not None and each * given["low"] < _FEWEST_STEADY:
        raise ConfigError(
            f"{where}.bounds: has {steady[0]}, and {amount(given['low'], 'user')} of "
            f"{amount(each, 'prompt')} send "
            f"{each * given['low']}; expected {_FEWEST_STEADY} or more, of which a part is steady. Raise "
            f"{where}.low or workload.prompts_per_user, or bound {steady[0].removeprefix('steady_')}."
        )
    return UserSearch(
        low=given["low"],
        high=given["high"],
        resolution=given["resolution"],
        bounds=_bounds_of(given),
        prompts_per_user=each,
    )


def _checked_search(
    where: str, given: Mapping[str, Any], *, usual: Mapping[str, Any], kinds: tuple[type, ...]
) -> Mapping[str, Any]:
    """Return a search with its defaults, its range and its bounds checked."""
    for key in given:
        check_choice(where, key, tuple(usual))
    given = {**usual, **given}
    _check_single(f"{where}.bounds", given["bounds"], (dict,))
    for key, value in given.items():
        if key != "bounds":
            _check_single(f"{where}: {key}", value, kinds)
            check_positive(f"{where}: {key}", value)
    if given["low"] > given["high"]:
        raise ConfigError(
            f"{where}: has low={given['low']:g} above high={given['high']:g}; expected low <= high."
        )
    if not given["bounds"]:
        raise ConfigError(f"{where}.bounds: is empty; expected such as {{p99_ttft_ms: 2000}}.")
    latencies = [name for one in REQUEST_LATENCIES for name in statistic_names(one.name)]
    for metric, bound in given["bounds"].items():
        check_choice(f"{where}.bounds", metric, [*latencies, *STEADY_LATENCIES])
        _check_single(f"{where}: {metric}", bound, (int, float))
        check_positive(f"{where}: {metric}", bound)
    return given


def _bounds_of(given: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    return tuple((metric, float(bound)) for metric, bound in given["bounds"].items())


def _check_runs_once(where: str, workload: Mapping[str, Any]) -> None:
    if workload["second_run"]:
        raise ConfigError(f"{where}: is given with second_run; expected one of them. Leave one out.")


def client(given: Mapping[str, Any], load_points: Sequence[LoadPoint]) -> ClientSpec:
    """Check that a client can send these load points.

    Args:
        given: The group ``client`` as composed.
        load_points: All of the study.

    Raises:
        ConfigError: There is no such client, or it cannot send one of them.
    """
    kind = given["kind"]
    check_choice("client.kind", kind, tuple(CLIENTS))
    declared = CLIENTS[kind]
    for point in load_points:
        if DATASETS[point.dataset].needs_server == declared.has_engine_inside:
            is_sent = (name for name in DATASETS if DATASETS[name].needs_server != declared.has_engine_inside)
            sends = " and ".join(is_sent)
            raise ConfigError(
                f"workload.dataset: is '{point.dataset}' with client '{kind}', which sends {sends}. "
                "Datasets latency and throughput need client=offline, the others a client with a server."
            )
        if not declared.reports_requests and (point.goodput_ms or point.search):
            key = "workload.goodput" if point.search is None else point.search.key
            raise ConfigError(
                f"{key}: is given with client {kind}, which reports no single requests; expected "
                "client=vllm_bench."
            )
        is_known = declared.datasets is None or point.dataset in declared.datasets
        if declared.package is not None and not is_known:
            raise ConfigError(
                f"workload.dataset: is '{point.dataset}', which client {kind} is not given here; expected "
                f"{' or '.join(declared.datasets or ())}. Choose one of them, or use client=vllm_bench."
            )
        if not is_known or (declared.needs_rate and point.request_rate_per_s is None):
            expected = "any dataset" if declared.datasets is None else " or ".join(declared.datasets)
            raise ConfigError(
                f"client.kind: {kind} is given dataset '{point.dataset}' at request_rate_per_s "
                f"{point.request_rate_per_s}; expected {expected} at a rate, which it keeps constant. "
                "Set workload=random and workload.request_rate_per_s, or use client=vllm_bench."
            )
    check_positive("client.start_timeout_s", given["start_timeout_s"])
    return ClientSpec(
        kind=kind,
        script=given["script"],
        python=given["python"],
        start_timeout_s=given["start_timeout_s"],
        trust_remote_code=given["trust_remote_code"],
        arguments=client_arguments.of(given["arguments"], load_points),
    )


def _check_single(where: str, value: Any, kinds: tuple[type, ...] | None) -> None:
    if kinds is None:
        return
    # true is a whole number to Python, but not to anybody else.
    is_right = isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)
    if not is_right:
        names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        raise ConfigError(f"{where}: is {value!r}; expected a single value of type {names}.")

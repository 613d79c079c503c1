"""How and when requests are put, checked: options of the dataset, arrivals, endpoint, sampling and body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sweeper.config.checks import check_choice, check_not_negative, check_positive
from sweeper.config.schema import RampConfig
from sweeper.errors import ConfigError, nearest
from sweeper.kinds import DATASETS, DatasetOption
from sweeper.records import SAMPLING, LoadPoint, Ramp, RequestForm, Scalar
from sweeper.text import confidential

_ENDPOINTS = ("completions", "chat")
_STRATEGIES = ("linear", "exponential")
_RAMP: Mapping[str, Any] = asdict(RampConfig())
_OWN_KEYS = ("model", "prompt", "messages", "max_tokens", "stream")
"""What the client puts into every body itself."""


def of(workload: Mapping[str, Any]) -> dict[str, Any]:
    """Check what a load point has beside lengths and rates.

    Args:
        workload: The workload, with what one of its points replaces.

    Returns:
        Arguments of ``LoadPoint``: ``options``, ``burstiness``, ``ramp`` and ``form``.

    Raises:
        ConfigError: A key is unknown, a value is not allowed, or two of them exclude each other.
    """
    _check_times(workload)
    ramp = _ramp(workload["ramp_up"], workload)
    return {
        "options": _options(workload["options"], workload["dataset"]),
        "burstiness": _burstiness(workload["burstiness"], workload, has_ramp=ramp is not None),
        "ramp": ramp,
        "form": _form(workload),
    }


def warm_up(workload: Mapping[str, Any]) -> int:
    """Check how many requests each user sends before a load point, to be thrown away.

    Raises:
        ConfigError: It is negative, or it is not said how many users there are.
    """
    each = int(check_not_negative("workload.warmup_per_user", workload["warmup_per_user"]))
    users = workload["max_concurrency"]
    # A search over the users says how many there are.
    is_open = None in (users if isinstance(users, list) else [users]) and workload["max_users"] is None
    if each and is_open:
        raise ConfigError(
            f"workload.warmup_per_user: is {each}, and max_concurrency has null, which is no number of "
            "users; expected how many there are at once. Set workload.max_concurrency, or "
            "workload.warmup_prompts for a warm-up of one size."
        )
    return each


def _options(given: Mapping[str, Any], dataset: str) -> tuple[tuple[str, Scalar], ...]:
    declared = DATASETS[dataset].options
    for name, value in given.items():
        where = f"workload.options.{name}"
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise ConfigError(
                f"{where}: dataset {dataset} has no such option; expected {known}. Leave it out."
                f"{nearest(str(name), tuple(declared))}"
            )
        _check_option(where, value, declared[name])
    for name, option in declared.items():
        if option.is_required and given.get(name) is None:
            raise ConfigError(
                f"workload.options.{name}: is not given, and dataset {dataset} needs it; expected "
                f"{option.meaning}. Set workload.options.{name}."
            )
    return tuple(sorted((str(name), value) for name, value in given.items() if value is not None))


def _check_option(where: str, value: Any, option: DatasetOption) -> None:
    if value is None:
        return
    # true is a whole number to Python, but not to anybody else.
    kinds = (int, float) if option.type is float else option.type
    if not isinstance(value, kinds) or (isinstance(value, bool) and option.type is not bool):
        raise ConfigError(
            f"{where}: is {value!r}; expected {option.meaning} ({option.type.__name__}). Change it."
        )
    if isinstance(value, (int, float)) and not value >= option.low:
        raise ConfigError(
            f"{where}: is {value:g}; expected {option.low:g} or more: {option.meaning}. Raise it."
        )


def _burstiness(given: Any, workload: Mapping[str, Any], *, has_ramp: bool) -> float:
    check_positive("workload.burstiness", given)
    if given != LoadPoint.burstiness and not has_ramp and workload["request_rate_per_s"] in (None, [None]):
        raise ConfigError(
            f"workload.burstiness: is {given:g}, and everything is sent at once; expected a request rate, "
            "whose gaps it spreads. Set workload.request_rate_per_s or workload.ramp_up."
        )
    return float(given)


def _check_times(workload: Mapping[str, Any]) -> None:
    """Check that nothing else says when requests are sent, where the dataset does."""
    given = [key for key in ("ramp_up", "max_rate") if workload[key] is not None]
    if given and DATASETS[workload["dataset"]].times is not None:
        raise ConfigError(
            f"workload.{given[0]}: is given with dataset {workload['dataset']}, which has a time for each "
            "request; expected none. Leave it out, or choose a dataset that is sent at a rate."
        )


def _ramp(given: Mapping[str, Any] | None, workload: Mapping[str, Any]) -> Ramp | None:
    if given is None:
        return None
    where = "workload.ramp_up"
    for key in given:
        check_choice(where, key, tuple(_RAMP))
    given = {**_RAMP, **given}
    check_choice(f"{where}.strategy", given["strategy"], _STRATEGIES)
    for key in ("start_per_s", "end_per_s"):
        value = given[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(
                f"{where}.{key}: is {value!r}; expected a whole number of requests per second from 1, as "
                "vLLM's benchmark takes it. Change it."
            )
    if workload["request_rate_per_s"] not in (None, [None]) or workload["max_rate"] is not None:
        raise ConfigError(
            f"{where}: is given with request_rate_per_s {workload['request_rate_per_s']} or max_rate; "
            "expected one of them, since a ramp says the rates itself. Set "
            "workload.request_rate_per_s=null, and leave max_rate out."
        )
    return Ramp(strategy=given["strategy"], start_per_s=given["start_per_s"], end_per_s=given["end_per_s"])


def _form(workload: Mapping[str, Any]) -> RequestForm:
    check_choice("workload.endpoint", workload["endpoint"], _ENDPOINTS)
    for name, value in workload["sampling"].items():
        check_choice("workload.sampling", name, SAMPLING)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise ConfigError(f"workload.sampling.{name}: is {value!r}; expected a number. Change it.")
    own = [name for name in workload["extra_body"] if name in _OWN_KEYS]
    if own:
        raise ConfigError(
            f"workload.extra_body: has {', '.join(own)}, which the client writes itself; expected other "
            "keys. Leave it out."
        )
    body = workload["extra_body"]
    if confidential.gives_secret(json.dumps(body)):
        raise ConfigError(
            "workload.extra_body: holds what looks like a secret, and load points are kept with the results; "
            "expected none. Leave it out: the key of the server reaches the client by itself "
            "(engine.api_key_env)."
        )
    form = RequestForm(
        endpoint=workload["endpoint"],
        sampling=tuple(sorted((name, float(value)) for name, value in workload["sampling"].items())),
        extra_body=json.dumps(body, sort_keys=True) if body else None,
    )
    if form.endpoint != "chat" and DATASETS[workload["dataset"]].conversations is not None:
        raise ConfigError(
            f"workload.endpoint: is {form.endpoint} with dataset {workload['dataset']}; expected chat, which "
            "alone knows of earlier turns. Set workload.endpoint=chat."
        )
    if form != RequestForm() and not DATASETS[workload["dataset"]].needs_server:
        raise ConfigError(
            f"workload: endpoint, sampling and extra_body are given ({form}) with dataset "
            f"{workload['dataset']}, which is sent to no server; expected none of them. Leave them out."
        )
    return form

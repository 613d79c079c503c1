"""What is sent and what sends it, checked: the client, and the load points that are named one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.config.checks import check_choice, nonempty
from sweeper.errors import ConfigError, nearest
from sweeper.records import CLIENTS, DATASETS, OFFLINE_DATASETS, ClientSpec, LoadPoint

# Numbers and lists of numbers, which are checked with those of the workload itself.
_NUMBERS = ("num_prompts", "input_len", "output_len", "max_concurrency", "request_rate_per_s")
_SINGLE: Mapping[str, tuple[type, ...]] = {
    "dataset": (str,),
    "dataset_path": (str, type(None)),
    "range_ratio": (int, float),
    "ignore_eos": (bool,),
    "client_seed": (int,),
}
_POINT_KEYS = (*_NUMBERS, *_SINGLE)


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
            if key not in _POINT_KEYS:
                raise ConfigError(
                    f"{where}: '{key}' is not part of a load point; expected one of {', '.join(_POINT_KEYS)}."
                    f"{nearest(str(key), _POINT_KEYS)}"
                )
            _check_single(f"{where}.{key}", value, _SINGLE.get(key))
    return points


def client(given: Mapping[str, Any], load_points: Sequence[LoadPoint]) -> ClientSpec:
    """Check that a client can send these load points.

    Args:
        given: The group ``client`` as composed.
        load_points: All of the study.

    Raises:
        ConfigError: There is no such client, or it cannot send one of them.
    """
    kind = given["kind"]
    check_choice("client.kind", kind, CLIENTS)
    for point in load_points:
        if (point.dataset in OFFLINE_DATASETS) != (kind == "offline"):
            online = tuple(name for name in DATASETS if name not in OFFLINE_DATASETS)
            sends = " and ".join(OFFLINE_DATASETS if kind == "offline" else online)
            raise ConfigError(
                f"workload.dataset: is '{point.dataset}' with client '{kind}', which sends {sends}. "
                "Datasets latency and throughput need client=offline, the others a client with a server."
            )
        if kind == "locust" and (point.dataset != "random" or point.request_rate_per_s is None):
            raise ConfigError(
                f"client.kind: locust is given dataset '{point.dataset}' at request_rate_per_s "
                f"{point.request_rate_per_s}; expected random at a rate, which it keeps constant. "
                "Set workload=random and workload.request_rate_per_s, or use client=vllm_bench."
            )
    return ClientSpec(kind=kind, script=given["script"], python=given["python"])


def _check_single(where: str, value: Any, kinds: tuple[type, ...] | None) -> None:
    if kinds is None:
        return
    # true is a whole number to Python, and is none to anybody else.
    is_right = isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)
    if not is_right:
        names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        raise ConfigError(f"{where}: is {value!r}; expected a single value of type {names}.")

"""``study.json``: what a study says of itself - its one writer and its one reader.

Every later reader of a study starts from it: the driver that goes on with it, charts and reports, and a
calibration. A key that is not there is one that an earlier version did not write, or that was not given.
"""

from __future__ import annotations

import json
import numbers
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sweeper.errors import StoreError, nearest
from sweeper.records import GPU, QUANTITY_NAMES, Constraint, Objective
from sweeper.store.files import Folder
from sweeper.text.printable import whole

FILE = "study.json"

SCHEMA_VERSION = 1
"""Version of ``study.json``, raised when the meaning of a key changes; later ones read all earlier ones."""

RUNS = ("fresh", "second")
"""Runs of one trial that a series can show."""

_ANEW = "Start the study again to write the file anew"

_KINDS: Mapping[str, type] = {
    **dict.fromkeys(("name", "experiment", "question", "source", "results"), str),
    **dict.fromkeys(("sweeper", "platform", "platform_reason", "node", "engine_release", "model"), str),
    "series": dict,
    "objectives": list,
    "constraints": list,
    "load_points": list,
    "config": dict,
}
_SERIES_KINDS: Mapping[str, type] = {"label": str, "published": str, "run": str, "engine": str, "order": int}
_QUANTITY_KINDS: Mapping[str, type] = {
    "metric": str,
    "request_rate_per_s": numbers.Real,
    "max_concurrency": numbers.Real,
    "per": str,
    "price_per_gpu_hour": numbers.Real,
}
_OBJECTIVE_KINDS: Mapping[str, type] = {**_QUANTITY_KINDS, "direction": str}
_CONSTRAINT_KINDS: Mapping[str, type] = {**_QUANTITY_KINDS, "limit": numbers.Real}
_KIND_NAMES: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    dict: "an object",
    list: "a list",
    numbers.Real: "a number",
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """A named assignment.

    Attributes:
        name: Its name in the results.
        label: Its name in a legend.
        published: The series of ``published.csv`` that it is compared with, or None.
        run: Which run of its trials it shows: ``fresh`` began with an empty prefix cache, ``second`` with
            what the run before it left there. None where a trial has one kind of run; of two it is fresh.
        engine: What serves it: name of an ``EngineKind``, as ``vllm``.
        order: Its place in a legend.
    """

    name: str
    label: str
    published: str | None = None
    run: str | None = None
    engine: str = "vllm"
    order: int = 0


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a study says of itself; None is what it does not say.

    Attributes:
        sweeper: Version of this package that wrote it.
        platform_reason: Why it is this platform.
        node: The node in words.
        engine_release: Version of vLLM, found or modelled.
        model: Name of the study's model.
        load_points: Each as plain data, with its label.
        results: Folder or URL of its measurements, where that is not the study's own folder.
        config: The configuration as composed, with secrets masked.
    """

    sweeper: str | None = None
    name: str | None = None
    experiment: str | None = None
    question: str | None = None
    source: str | None = None
    platform: str | None = None
    platform_reason: str | None = None
    node: str | None = None
    engine_release: str | None = None
    model: str | None = None
    series: Mapping[str, Series] = field(default_factory=dict)
    objectives: tuple[Objective, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    load_points: tuple[Mapping[str, Any], ...] = ()
    results: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def as_json(self) -> str:
        """The text of the file."""
        series = {name: asdict(one) for name, one in self.series.items()}
        for entry in series.values():
            del entry["name"]
        content = {
            "schema_version": SCHEMA_VERSION,
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "series": series,
            "objectives": [_quantity(one) for one in self.objectives],
            "constraints": [_quantity(one) for one in self.constraints],
        }
        return json_text(content)


def json_text(content: object) -> str:
    """Write plain data as the files of a study have it."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    # Half a character is no UTF-8; its code is the same character in JSON.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def read(folder: Folder) -> Description | None:
    """Read the description of a study; None where there is none.

    Args:
        folder: That it lies in.

    Raises:
        StoreError: It cannot be read, is of a later version, or holds a value of another kind.
    """
    content = read_content(folder, remedy="Restore it")
    return None if content is None else _parsed(whole(content), str(folder.at(FILE)))


def read_content(folder: Folder, *, remedy: str) -> dict[str, Any] | None:
    """Read the keys of a description as stored; None where there is none.

    Args:
        folder: That it lies in.
        remedy: What the caller advises about a damaged one.

    Raises:
        StoreError: It cannot be read, is no JSON object, or is of a later version.
    """
    path = str(folder.at(FILE))
    if not folder.holds(FILE):
        return None
    try:
        content = json.loads(bytes(folder.read(FILE)))
    except (ValueError, RecursionError) as exc:
        raise StoreError(f"{path}: is not JSON ({exc}); expected a study's description. {remedy}.") from exc
    if not isinstance(content, dict):
        raise StoreError(f"{path}: holds a {type(content).__name__}; expected a JSON object. {remedy}.")
    version = content.get("schema_version") or SCHEMA_VERSION
    if not isinstance(version, int) or isinstance(version, bool) or version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: is of schema version {version!r}; expected at most {SCHEMA_VERSION}. It was written by "
            "a later sweeper: install that one, or give this study another name with study.name=..."
        )
    return content


def _parsed(content: Mapping[str, Any], path: str) -> Description:
    for key, kind in _KINDS.items():
        _check(path, key, content.get(key), kind)
    texts = {key: content.get(key) for key, kind in _KINDS.items() if kind is str}
    points = content.get("load_points") or []
    for place, point in enumerate(points):
        _check_entry(path, f"load_points[{place}]", point, {})
    return Description(
        **texts,
        series=_series(content, path),
        objectives=_objectives(content, path),
        constraints=_constraints(content, path),
        load_points=tuple(points),
        config=content.get("config") or {},
    )


def _check(path: str, key: str, value: Any, kind: type) -> None:
    """Refuse a value of another kind; null counts as missing."""
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise StoreError(
            f"{path}: '{key}' is {value!r:.80}; expected {_KIND_NAMES[kind]}. {_ANEW}, or restore it."
        )


def _series(content: Mapping[str, Any], path: str) -> dict[str, Series]:
    described = content.get("series") or {}
    for name, entry in described.items():
        _check_entry(path, f"series.{name}", entry, _SERIES_KINDS)
    series = {
        name: Series(
            name=name,
            label=entry.get("label") or name,
            published=entry.get("published"),
            run=entry.get("run"),
            engine=entry.get("engine") or "vllm",
            order=place if entry.get("order") is None else entry["order"],
        )
        for place, (name, entry) in enumerate(described.items())
    }
    for one in series.values():
        if one.run not in (None, *RUNS):
            raise StoreError(
                f"{path}: series '{one.name}' has run '{one.run}'; expected one of {list(RUNS)}, or none."
                f"{nearest(str(one.run), RUNS)} {_ANEW}."
            )
    return series


def _check_entry(path: str, key: str, entry: Any, kinds: Mapping[str, type]) -> None:
    if entry is None:
        raise StoreError(f"{path}: '{key}' is null; expected an object. Restore the file.")
    _check(path, key, entry, dict)
    for name, kind in kinds.items():
        _check(path, f"{key}.{name}", entry.get(name), kind)


def _quantity(one: Objective | Constraint) -> dict[str, Any]:
    """Return an objective or a bound as it is kept; only one that is a cost has a price."""
    entry = {**asdict(one), "name": one.name}
    if one.price_per_gpu_hour is None:
        del entry["price_per_gpu_hour"]
    return entry


def _objectives(content: Mapping[str, Any], path: str) -> tuple[Objective, ...]:
    entries = content.get("objectives") or []
    for place, entry in enumerate(entries):
        _check_entry(path, f"objectives[{place}]", entry, _OBJECTIVE_KINDS)
    objectives = tuple(
        Objective(
            metric=entry.get("metric") or "",
            direction=entry.get("direction") or "",
            request_rate_per_s=entry.get("request_rate_per_s"),
            max_concurrency=entry.get("max_concurrency"),
            per=entry.get("per"),
            price_per_gpu_hour=entry.get("price_per_gpu_hour"),
        )
        for entry in entries
    )
    for objective in objectives:
        is_known = objective.metric in QUANTITY_NAMES and objective.per in (None, GPU)
        if not is_known or objective.direction not in ("maximize", "minimize"):
            raise StoreError(
                f"{path}: has an objective with direction '{objective.direction}' and metric "
                f"'{objective.metric}'; expected maximize or minimize, and a metric."
                f"{nearest(objective.metric, QUANTITY_NAMES)} {_ANEW}."
            )
    return objectives


def _constraints(content: Mapping[str, Any], path: str) -> tuple[Constraint, ...]:
    entries = content.get("constraints") or []
    for place, entry in enumerate(entries):
        where = f"constraints[{place}]"
        _check_entry(path, where, entry, _CONSTRAINT_KINDS)
        is_whole = isinstance(entry.get("is_upper"), bool) and entry.get("limit") is not None
        if entry.get("metric") not in QUANTITY_NAMES or not is_whole:
            raise StoreError(
                f"{path}: '{where}' is {entry!r:.80}; expected metric, limit, and is_upper true or false. "
                f"{_ANEW}."
            )
    return tuple(
        Constraint(
            metric=entry["metric"],
            limit=entry["limit"],
            is_upper=entry["is_upper"],
            request_rate_per_s=entry.get("request_rate_per_s"),
            max_concurrency=entry.get("max_concurrency"),
            per=entry.get("per"),
            price_per_gpu_hour=entry.get("price_per_gpu_hour"),
        )
        for entry in entries
    )

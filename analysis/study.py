"""A study as the charts see it: its latest results, and what ``study.json`` says about them."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from sweeper.errors import ConfigError, StoreError, nearest
from sweeper.files import Folder, Location, open_folder
from sweeper.legible import whole
from sweeper.records import GPU, METRIC_NAMES, Constraint, Objective
from sweeper.store import Store
from sweeper.urls import is_url


@dataclass(frozen=True, kw_only=True)
class Series:
    """A named assignment.

    Attributes:
        name: Its name in the results.
        label: Its name in a legend.
        published: The series of ``published.csv`` that it stands beside, or None.
        run: Which run of its trials it shows: ``fresh`` began with an empty prefix cache, ``second`` with
            what the run before it left there. None where a trial has one kind of run; of two it is fresh.
        order: Its place in a legend.
    """

    name: str
    label: str
    published: str | None = None
    run: str | None = None
    order: int = 0


_DESCRIPTION = "study.json"

DESCRIPTION_VERSION = 1
"""Version of ``study.json`` up to which it is read."""

_KINDS: Mapping[str, type] = {
    "schema_version": int,
    "experiment": str,
    "question": str,
    "source": str,
    "results": str,
    "series": dict,
    "objectives": list,
    "constraints": list,
}
_SERIES_KINDS: Mapping[str, type] = {"label": str, "published": str, "run": str, "order": int}
_QUANTITY_KINDS: Mapping[str, type] = {"metric": str, "request_rate_per_s": numbers.Real, "per": str}
_OBJECTIVE_KINDS: Mapping[str, type] = {**_QUANTITY_KINDS, "direction": str}
_CONSTRAINT_KINDS: Mapping[str, type] = {**_QUANTITY_KINDS, "limit": numbers.Real}
_KIND_NAMES: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    dict: "an object",
    list: "a list",
    numbers.Real: "a number",
}

RUNS = ("fresh", "second")
"""Runs of one trial that a series can show."""

DEFAULT_OBJECTIVES = (Objective(metric="request_throughput_per_s", direction="maximize"),)
"""Where a study names none: the first chart of the source article is requests per second."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One study, read from its folder.

    Attributes:
        folder: Where charts and report go: the study's folder, or one of its name for results behind a URL.
        frame: Rows of ``measurements/``, the latest attempt of each trial, without repetitions of the control
            setting and of finalists: those are no further trials of it.
        every_row: With them.
        attempts: With earlier attempts of a trial, too.
        location: Where the results lie, if not in the study's folder.
        experiment: Names the folder of published figures; None where the study belongs to none.
        price_per_gpu_hour: What a GPU costs by the hour; None where nobody said.
        currency: Of the price; may be empty.
    """

    folder: Path
    frame: pd.DataFrame
    every_row: pd.DataFrame
    attempts: pd.DataFrame
    location: Location | None = None
    experiment: str | None = None
    question: str | None = None
    source: str | None = None
    series: Mapping[str, Series]
    objectives: tuple[Objective, ...] = DEFAULT_OBJECTIVES
    constraints: tuple[Constraint, ...] = ()
    price_per_gpu_hour: float | None = None
    currency: str = ""

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.frame["study"].iloc[0])

    @property
    def is_simulated(self) -> bool:
        """Whether any number here comes from a model and not from a machine."""
        return bool((self.frame["provenance"] != "measured").any())

    @classmethod
    def load(cls, place: Path | str) -> Study:
        """Read a study.

        Args:
            place: Its folder, or the URL below which its results lie.

        Raises:
            ConfigError: The folder is missing or holds no results.
            StoreError: ``study.json`` or a stored part cannot be read.
        """
        if isinstance(place, str) and is_url(place):
            name = PurePosixPath(urlsplit(place).path).name
            return cls._load(open_folder(place, where="study"), Path(name))
        folder = Path(place)
        if not folder.is_dir():
            raise ConfigError(
                f"{folder}: no such folder; expected a study's folder, such as outputs/case2_sched_steps. "
                "Look into outputs/ for its name, or run the study first."
            )
        return cls._load(open_folder(folder, where="study"), folder)

    @classmethod
    def _load(cls, place: Folder, folder: Path) -> Study:
        described = str(place.at(_DESCRIPTION))
        about = _about(place, described)
        results = about.get("results") or place
        attempts = _finite(Store(folder, results).read())
        frame = Store.latest(attempts)
        if frame.empty:
            where = results if isinstance(results, str) else place.location
            raise ConfigError(
                f"{where}: holds no results; expected Parquet parts in its measurements/ folder. "
                "Run the study first, or name the folder of another one."
            )
        return cls(
            folder=folder,
            frame=_without_repetitions(frame),
            every_row=frame,
            attempts=attempts,
            location=about.get("results"),
            experiment=about.get("experiment"),
            question=about.get("question"),
            source=about.get("source"),
            series=_series(about, described),
            objectives=_objectives(about, described),
            constraints=_constraints(about, described),
            **_price(about),
        )


def _finite(frame: pd.DataFrame) -> pd.DataFrame:
    """Leave out infinity: it is no measurement, and no axis holds it."""
    names = frame.select_dtypes("float").columns
    return frame.assign(**{name: frame[name].replace([math.inf, -math.inf], math.nan) for name in names})


def is_control(frame: pd.DataFrame) -> pd.Series[bool]:
    """Tell for each row whether it repeats the control setting; without that column, none does."""
    if "role" not in frame:
        return pd.Series(False, index=frame.index)
    return frame["role"].eq("control").fillna(False).astype(bool)


def _without_repetitions(frame: pd.DataFrame) -> pd.DataFrame:
    """Leave the repetitions out; a study that was cut off after its first one has nothing else to show."""
    others = frame[frame["role"].isna()].reset_index(drop=True) if "role" in frame else frame
    return frame if others.empty else others


def _about(place: Folder, path: str) -> dict[str, Any]:
    """Read study.json; without one the numbers still stand, only labels and published figures are missing."""
    if not place.holds(_DESCRIPTION):
        return {}
    try:
        about = json.loads(bytes(place.read(_DESCRIPTION)))
    except ValueError as exc:
        raise StoreError(f"{path}: is not JSON ({exc}); expected a study's description. Restore it.") from exc
    if not isinstance(about, dict):
        raise StoreError(f"{path}: holds a {type(about).__name__}; expected a JSON object. Restore it.")
    about = dict(whole(about))
    for key, kind in _KINDS.items():
        _check(path, key, about.get(key), kind)
    version = about.get("schema_version") or DESCRIPTION_VERSION
    if version > DESCRIPTION_VERSION:
        raise StoreError(
            f"{path}: is of schema version {version}; expected at most {DESCRIPTION_VERSION}. It was written "
            "by a later sweeper: install that one to read this study."
        )
    return about


def _check(path: str, key: str, value: Any, kind: type) -> None:
    """Refuse a value of another kind; null is none at all."""
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise StoreError(
            f"{path}: '{key}' is {value!r:.80}; expected {_KIND_NAMES[kind]}. "
            "Start the study again to write the file anew, or restore it."
        )


def _series(about: Mapping[str, Any], path: str) -> dict[str, Series]:
    described = about.get("series") or {}
    for name, entry in described.items():
        _check_entry(path, f"series.{name}", entry, _SERIES_KINDS)
    series = {
        name: Series(
            name=name,
            label=entry.get("label") or name,
            published=entry.get("published"),
            run=entry.get("run"),
            order=place if entry.get("order") is None else entry["order"],
        )
        for place, (name, entry) in enumerate(described.items())
    }
    for entry in series.values():
        if entry.run not in (None, *RUNS):
            raise StoreError(
                f"{path}: series '{entry.name}' has run '{entry.run}'; expected one of {list(RUNS)}, or none."
                f"{nearest(str(entry.run), RUNS)} Start the study again to write the file anew."
            )
    return series


def _check_entry(path: str, key: str, entry: Any, kinds: Mapping[str, type]) -> None:
    if entry is None:
        raise StoreError(f"{path}: '{key}' is null; expected an object. Restore the file.")
    _check(path, key, entry, dict)
    for name, kind in kinds.items():
        _check(path, f"{key}.{name}", entry.get(name), kind)


def _objectives(about: Mapping[str, Any], path: str) -> tuple[Objective, ...]:
    for place, entry in enumerate(about.get("objectives") or []):
        _check_entry(path, f"objectives[{place}]", entry, _OBJECTIVE_KINDS)
    objectives = tuple(
        Objective(
            metric=entry.get("metric") or "",
            direction=entry.get("direction") or "",
            request_rate_per_s=entry.get("request_rate_per_s"),
            per=entry.get("per"),
        )
        for entry in about.get("objectives") or []
    )
    for objective in objectives:
        is_known = objective.metric in METRIC_NAMES and objective.per in (None, GPU)
        if not is_known or objective.direction not in ("maximize", "minimize"):
            raise StoreError(
                f"{path}: has an objective with direction '{objective.direction}' and metric "
                f"'{objective.metric}'; expected maximize or minimize, and a metric."
                f"{nearest(objective.metric, METRIC_NAMES)} Start the study again to write the file anew."
            )
    return objectives or DEFAULT_OBJECTIVES


def _price(about: Mapping[str, Any]) -> dict[str, Any]:
    """Read what a GPU costs; studies from before there was a price name none."""
    config = about.get("config")
    study = config.get("study") if isinstance(config, dict) else None
    given = study if isinstance(study, dict) else {}
    price = given.get("price_per_gpu_hour")
    is_price = isinstance(price, int | float) and not isinstance(price, bool)
    return {"price_per_gpu_hour": price if is_price else None, "currency": str(given.get("currency") or "")}


def _constraints(about: Mapping[str, Any], path: str) -> tuple[Constraint, ...]:
    entries = about.get("constraints") or []
    for place, entry in enumerate(entries):
        where = f"constraints[{place}]"
        _check_entry(path, where, entry, _CONSTRAINT_KINDS)
        is_whole = isinstance(entry.get("is_upper"), bool) and entry.get("limit") is not None
        if entry.get("metric") not in METRIC_NAMES or not is_whole:
            raise StoreError(
                f"{path}: '{where}' is {entry!r:.80}; expected metric, limit, and is_upper true or false. "
                "Start the study again to write the file anew."
            )
    return tuple(
        Constraint(
            metric=entry["metric"],
            limit=entry["limit"],
            is_upper=entry["is_upper"],
            request_rate_per_s=entry.get("request_rate_per_s"),
            per=entry.get("per"),
        )
        for entry in entries
    )

"""A study as the charts see it: its latest results, and what ``study.json`` says about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from sweeper.errors import ConfigError, StoreError, nearest
from sweeper.files import Folder, Location, open_folder
from sweeper.records import METRIC_NAMES, Objective
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

RUNS = ("fresh", "second")
"""Runs of one trial that a series can show."""

DEFAULT_OBJECTIVES = (Objective(metric="request_throughput_per_s", direction="maximize"),)
"""Where a study names none: the first chart of the source article is requests per second."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One study, read from its folder.

    Attributes:
        folder: Where charts and report go: the study's folder, or one of its name for results behind a URL.
        frame: Rows of ``measurements/``, the latest attempt of each trial.
        location: Where the results lie, if not in the study's folder.
        experiment: Names the folder of published figures; None where the study belongs to none.
    """

    folder: Path
    frame: pd.DataFrame
    location: Location | None = None
    experiment: str | None = None
    question: str | None = None
    source: str | None = None
    series: Mapping[str, Series]
    objectives: tuple[Objective, ...] = DEFAULT_OBJECTIVES

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
        frame = Store.latest(Store(folder, results).read())
        if frame.empty:
            where = results if isinstance(results, str) else place.location
            raise ConfigError(
                f"{where}: holds no results; expected Parquet parts in its measurements/ folder. "
                "Run the study first, or name the folder of another one."
            )
        return cls(
            folder=folder,
            frame=frame,
            location=about.get("results"),
            experiment=about.get("experiment"),
            question=about.get("question"),
            source=about.get("source"),
            series=_series(about, described),
            objectives=_objectives(about, described),
        )


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
    return about


def _series(about: Mapping[str, Any], path: str) -> dict[str, Series]:
    series = {
        name: Series(
            name=name,
            label=entry.get("label") or name,
            published=entry.get("published"),
            run=entry.get("run"),
            order=int(entry.get("order", place)),
        )
        for place, (name, entry) in enumerate((about.get("series") or {}).items())
    }
    for entry in series.values():
        if entry.run not in (None, *RUNS):
            raise StoreError(
                f"{path}: series '{entry.name}' has run '{entry.run}'; expected one of {list(RUNS)}, or none."
                f"{nearest(str(entry.run), RUNS)} Start the study again to write the file anew."
            )
    return series


def _objectives(about: Mapping[str, Any], path: str) -> tuple[Objective, ...]:
    objectives = tuple(
        Objective(
            metric=entry.get("metric", ""),
            direction=entry.get("direction", ""),
            request_rate_per_s=entry.get("request_rate_per_s"),
        )
        for entry in about.get("objectives") or []
    )
    for objective in objectives:
        if objective.metric not in METRIC_NAMES or objective.direction not in ("maximize", "minimize"):
            raise StoreError(
                f"{path}: has an objective with direction '{objective.direction}' and metric "
                f"'{objective.metric}'; expected maximize or minimize, and a metric."
                f"{nearest(objective.metric, METRIC_NAMES)} Start the study again to write the file anew."
            )
    return objectives or DEFAULT_OBJECTIVES

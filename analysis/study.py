"""A study as the charts see it: its latest results, and what ``study.json`` says about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from analysis.worth import Price, with_derived, with_losses
from sweeper.errors import ConfigError
from sweeper.records import Constraint, Objective
from sweeper.store import description
from sweeper.store.description import Description, Series
from sweeper.store.files import Folder, Location, open_folder
from sweeper.store.store import Store
from sweeper.text.urls import is_url

__all__ = ["DEFAULT_OBJECTIVES", "Series", "Study", "distinct_names", "is_control"]


DEFAULT_OBJECTIVES = (Objective(metric="request_throughput_per_s", direction="maximize"),)
"""Where a study names none: the first chart of the source article is requests per second."""


# Compared by identity: tables have no equality that a set or a cache could use.
@dataclass(frozen=True, kw_only=True, eq=False)
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
        counterpart_of: The experiment that it stands in for, on a vLLM that lacks its knobs; empty for none.
        changes: What became there of each knob of that experiment.
        price_per_gpu_hour: What a GPU costs by the hour; None where it was not given.
        currency: Of the price; may be empty.
        method: How settings were chosen, such as ``grid`` or ``tpe``; empty where the study does not say.
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
    counterpart_of: str = ""
    changes: Mapping[str, str] = field(default_factory=dict)
    price_per_gpu_hour: float | None = None
    currency: str = ""
    method: str = ""

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.frame["study"].iloc[0])

    @property
    def is_simulated(self) -> bool:
        """Whether any number here comes from a model and not from a machine."""
        return bool((self.frame["provenance"] != "measured").any())

    @classmethod
    def load(
        cls, place: Path | str, *, price_per_gpu_hour: float | None = None, currency: str | None = None
    ) -> Study:
        """Read a study.

        Args:
            place: Its folder, or the URL below which its results lie.
            price_per_gpu_hour: What a GPU costs by the hour; None takes what the study names, if it does.
            currency: Of that price.

        Raises:
            ConfigError: The folder is missing or holds no results.
            StoreError: ``study.json`` or a stored part cannot be read.
        """
        if isinstance(place, str) and is_url(place):
            name = PurePosixPath(urlsplit(place).path).name
            return cls._load(
                open_folder(place, where="study"), Path(name), price=price_per_gpu_hour, currency=currency
            )
        folder = Path(place)
        if not folder.is_dir():
            raise ConfigError(
                f"{folder}: no such folder; expected a study's folder, such as outputs/case2_sched_steps. "
                "Look into outputs/ for its name, or run the study first."
            )
        return cls._load(
            open_folder(folder, where="study"), folder, price=price_per_gpu_hour, currency=currency
        )

    @classmethod
    def _load(
        cls, place: Folder, folder: Path, *, price: float | None = None, currency: str | None = None
    ) -> Study:
        about = description.read(place) or Description()
        results = about.results or place
        paid = Price.of(about, given=price, currency=currency)
        attempts = with_derived(_finite(Store(folder, results).read()), price_per_gpu_hour=paid.per_gpu_hour)
        frame = with_losses(Store.latest(attempts))
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
            location=about.results,
            experiment=about.experiment,
            question=about.question,
            source=about.source,
            series=about.series,
            objectives=paid.put_into(about.objectives or DEFAULT_OBJECTIVES),
            constraints=paid.put_into(about.constraints),
            price_per_gpu_hour=paid.per_gpu_hour,
            currency=paid.currency,
            **_counterpart(about),
            method=_method(about),
        )


def distinct_names(studies: Sequence[Study]) -> list[str]:
    """Name studies so that no two are called the same."""
    names = [study.name for study in studies]
    return [
        name if names.count(name) == 1 else f"{name}-{place}" for place, name in enumerate(names, start=1)
    ]


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
    """Return the rows without repetitions; a study cut off after its first one has nothing else to show."""
    is_own = frame["role"].isna() if "role" in frame else pd.Series(True, index=frame.index)
    return frame if is_own.all() or not is_own.any() else frame[is_own].reset_index(drop=True)


def _counterpart(about: Description) -> dict[str, Any]:
    """Read what the study stands in for; studies from before there were counterparts name nothing."""
    given = _asked(about)
    changes = given.get("changes")
    return {
        "counterpart_of": str(given.get("counterpart_of") or ""),
        "changes": changes if isinstance(changes, dict) else {},
    }


def _asked(about: Description) -> dict[str, Any]:
    study = about.config.get("study")
    return study if isinstance(study, dict) else {}


def _method(about: Description) -> str:
    search = about.config.get("search")
    return str(search.get("method") or "") if isinstance(search, dict) else ""

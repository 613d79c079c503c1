"""What a study's tokens are worth: its price, and the metrics that are worked out from stored columns.

A price that is given later takes the place of the study's own, and nothing that is stored changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pandas as pd

from sweeper.errors import ConfigError
from sweeper.records import Constraint, Objective, derived, magnitudes
from sweeper.records.derived import LOSS, LOSS_HIGH
from sweeper.store.description import Description
from sweeper.store.losses import Default

Quantity = TypeVar("Quantity", Objective, Constraint)


def check_price(given: float) -> None:
    """Refuse a price of the command line that is none.

    Raises:
        ConfigError: It is not above 0, or one that nobody can mean.
    """
    if not magnitudes.is_meant(given):
        raise ConfigError(
            f"--price: is {given:g}; expected what a GPU costs by the hour, from {magnitudes.SMALLEST:g} to "
            f"{magnitudes.LARGEST:g}. Correct it."
        )


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a GPU costs.

    Attributes:
        per_gpu_hour: By the hour; None where it is not known.
        currency: May be empty.
    """

    per_gpu_hour: float | None = None
    currency: str = ""

    @classmethod
    def of(cls, about: Description, *, given: float | None, currency: str | None) -> Price:
        """Return a study's price: what is given, else what the study names.

        Raises:
            ConfigError: It is given and not above 0.
        """
        asked = about.config.get("study")
        own: Mapping[str, Any] = asked if isinstance(asked, dict) else {}
        named = str(own.get("currency") or "")
        if given is not None:
            check_price(given)
            return cls(per_gpu_hour=given, currency=named if currency is None else currency)
        price = own.get("price_per_gpu_hour")
        is_price = isinstance(price, int | float) and not isinstance(price, bool)
        return cls(per_gpu_hour=price if is_price else None, currency=named if currency is None else currency)

    def put_into(self, quantities: Sequence[Quantity]) -> tuple[Quantity, ...]:
        """Return objectives or bounds, those that are a cost with this price."""
        return tuple(
            replace(one, price_per_gpu_hour=self.per_gpu_hour) if one.metric in derived.COSTS else one
            for one in quantities
        )


def with_derived(frame: pd.DataFrame, *, price_per_gpu_hour: float | None) -> pd.DataFrame:
    """Return rows of the store with a column for each metric of ``records.derived``; unknown is NaN."""
    if frame.empty:
        return frame
    read = [name for name in (*derived.READ_COLUMNS, "trial_key", "attempt") if name in frame]
    rows = frame[read].to_dict("records")
    starts = 1 + frame.groupby(["trial_key", "attempt"])["restart"].transform("max").fillna(0).astype(int)
    columns = {
        name: [
            derived.value(name, _named(row), starts=many, price_per_gpu_hour=price_per_gpu_hour)
            for row, many in zip(rows, starts, strict=True)
        ]
        for name in derived.DERIVED_BY_NAME
    }
    return frame.assign(
        **{name: pd.Series(values, index=frame.index, dtype="float64") for name, values in columns.items()}
    )


def with_losses(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a study's latest rows with what each trial lost of right answers, where questions were asked."""
    if frame.empty or "accuracy_right" not in frame or frame["accuracy_right"].isna().all():
        return frame
    trials = [_named(row) for row in frame.drop_duplicates("trial_key").to_dict("records")]
    default = Default()
    for row in trials:
        default.learn([row])
    found = {row["trial_key"]: default.held_against([row])[0] for row in trials}
    return frame.assign(
        **{
            name: frame["trial_key"].map({key: row.get(name) for key, row in found.items()}).astype("float64")
            for name in (LOSS, LOSS_HIGH)
        }
    )


def _named(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}

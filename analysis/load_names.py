"""How load points are called: on an axis, in a legend and in a sentence, by what they differ in.

A study by rates has rates on its axis, one by users has users, and anything else names each load point in
words. What all load points have in common is never part of a name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from sweeper.kinds import DATASETS
from sweeper.records import (
    LOAD_COLUMNS,
    MAX_RATE,
    MAX_USERS,
    SEARCH_SLOS,
    users_of,
    users_text,
)
from sweeper.records.plurals import amount

Row = Mapping[Hashable, Any]
"""One row of a table, by column."""

ALL_AT_ONCE = "all at once"
"""Names the load point that has no request rate."""

# The words of a load point on an axis, by column.
_LOAD_WORDS: Mapping[str, Callable[[Any], str]] = {
    "request_rate_per_s": lambda value: ALL_AT_ONCE if value is None else f"{value:g} QPS",
    "max_concurrency": lambda value: "no limit" if value is None else f"{int(value)} at a time",
    "input_len": lambda value: "recorded input" if value is None else f"{value} in",
    "output_len": lambda value: "recorded output" if value is None else f"{value} out",
    "num_prompts": lambda value: amount(value, "prompt"),
    "dataset": str,
    "range_ratio": lambda value: f"range {value}",
    "ignore_eos": lambda value: "ignoring EOS" if value else "until EOS",
    "dataset_options": lambda value: "no options" if value is None else str(value),
    "arrivals": lambda value: "Poisson" if value is None else str(value),
    "request_form": lambda value: "completions" if value is None else str(value),
}
LOAD_POINT = LOAD_COLUMNS
"""Columns in which load points differ, in the order of an axis."""

HIGHEST_RATE = "highest rate within bounds"
"""Names the load point of what a search over the request rate found."""

MOST_USERS = "most users within bounds"
"""Names the load point of what a search over the users found."""

ANSWERS: Mapping[str, str] = {MAX_RATE: HIGHEST_RATE, MAX_USERS: MOST_USERS}

RUN = "keeps_prefix_cache"
"""Column that tells a second run from a fresh one."""

_RUN_WORDS = {False: "fresh run", True: "second run"}
_RATE_AXIS = "Request rate (QPS)"
USERS_AXIS = "Concurrency (users)"
"""Title of an axis of load points that differ in the users of a closed loop."""

_HEAVINESS = ("request_rate_per_s", "max_concurrency")


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """Name the load point of every row and put the loads of each setting in order.

    Args:
        rows: Of the store, with ``setting``.

    Returns:
        The rows with ``load_point`` and ``load_axis`` (title of the axis).
    """
    varying = varying_loads(rows)
    # Series that show one run each share a load point; only where a setting has both are they distinguished.
    has_both_runs = bool((rows.groupby("setting", sort=False)[RUN].nunique() > 1).any())
    title = "Load point" if has_both_runs else _axis_of(rows, varying)
    labels = [
        ", ".join(
            [*_load_words(row, varying, title=title), *([_RUN_WORDS[row[RUN]]] if has_both_runs else [])]
        )
        for row in rows[[*LOAD_POINT, RUN]].to_dict("records")
    ]
    # No rate means everything at once: the highest load, so it stands last. Settings keep their order.
    load = rows[list(LOAD_POINT)].apply(pd.to_numeric, errors="coerce").astype("float64").fillna(math.inf)
    place = {name: index for index, name in enumerate(dict.fromkeys(rows["setting"]))}
    keys = load.assign(_setting=rows["setting"].map(place), _run=rows[RUN])
    order = keys.sort_values(["_setting", *LOAD_POINT, "_run"], kind="stable").index
    ordered: pd.DataFrame = rows.assign(load_point=labels, load_axis=title).loc[order]
    return ordered


def _axis_of(rows: pd.DataFrame, varying: Sequence[str]) -> str:
    """Return the title of the axis of load points: of what alone they differ in, or of nothing particular."""
    if set(varying) <= {"max_concurrency"} and are_of_users(rows):
        return USERS_AXIS
    return _RATE_AXIS if set(varying) <= {"request_rate_per_s"} else "Load point"


def _load_words(row: Row, varying: Sequence[str], *, title: str) -> list[str]:
    if title == USERS_AXIS:
        return [str(users_at(row))]
    if title == _RATE_AXIS:
        rate = row["request_rate_per_s"]
        return _heaviness_words(row, _HEAVINESS[:1]) if pd.isna(rate) else [f"{rate:g}"]
    further = [name for name in varying if name not in _HEAVINESS]
    words = [_LOAD_WORDS[name](None if pd.isna(row[name]) else row[name]) for name in further]
    return [*_heaviness_words(row, [name for name in varying if name in _HEAVINESS]), *words]


def _heaviness_words(row: Row, varying: Sequence[str]) -> list[str]:
    """Return how heavy a load point is, by those of rate and concurrency in which its siblings differ."""
    users = users_at(row)
    if users is not None:
        return [users_text(users)] if varying else []
    rate, most = row["request_rate_per_s"], row["max_concurrency"]
    words: list[str] = []
    if "request_rate_per_s" in varying:
        words.append(_without_rate(row) if pd.isna(rate) else _LOAD_WORDS["request_rate_per_s"](rate))
    if "max_concurrency" in varying:
        words.append(_LOAD_WORDS["max_concurrency"](None if pd.isna(most) else most))
    return words


def _without_rate(row: Row) -> str:
    """Return when requests are sent that have no rate, where other load points have one."""
    kind = DATASETS.get(str(row["dataset"]))
    if isinstance(row["arrivals"], str):
        return "no constant rate"
    return ALL_AT_ONCE if kind is None or kind.times is None else "its own times"


def users_at(row: Row) -> int | None:
    """Return the users of a row's closed loop; None where its requests have times that others set."""
    known = {name: None if pd.isna(row[name]) else row[name] for name in (*_HEAVINESS, "arrivals")}
    users = users_of(**known, dataset=str(row["dataset"]))
    return None if users is None else int(users)


def is_probe(rows: pd.DataFrame) -> pd.Series[bool]:
    """Return which rows are probes of a search for the heaviest load within bounds."""
    marks = [rows[slo].notna() for slo in SEARCH_SLOS.values() if slo in rows]
    none = pd.Series(False, index=rows.index, dtype=bool)
    return pd.concat([none, *marks], axis="columns").any(axis="columns").astype(bool)


def varying_loads(frame: pd.DataFrame) -> list[str]:
    """Return the columns of ``LOAD_POINT`` in which load points differ by themselves.

    Probes of a search differ as it leads; where users each send as many prompts as the others, how many there
    are in all says nothing of its own.

    Args:
        frame: Rows of the store.
    """
    chosen = frame[~is_probe(frame)]
    rows = frame if chosen.empty else chosen
    varying = [name for name in LOAD_POINT if rows[name].nunique(dropna=False) > 1]
    if {"num_prompts", "max_concurrency"} <= set(varying) and are_of_users(rows):
        follows = rows.groupby("max_concurrency")["num_prompts"].nunique().max() == 1
        return [name for name in varying if name != "num_prompts" or not follows]
    return varying


def are_of_users(rows: pd.DataFrame) -> bool:
    """Return whether all load points are closed loops of users."""
    loads = rows[[*_HEAVINESS, "arrivals", "dataset"]].drop_duplicates()
    return not loads.empty and all(users_at(row) is not None for row in loads.to_dict("records"))


def load_point_text(row: Row) -> str:
    """Name a load point where no axis gives the unit: ``16 QPS``, ``64 users``."""
    point = str(row["load_point"])
    if row["load_axis"] == USERS_AXIS:
        return users_text(int(point))
    has_rate = row["load_axis"] == _RATE_AXIS and not pd.isna(row["request_rate_per_s"])
    return f"{point} QPS" if has_rate else point


def load_words(row: Row, varying: Sequence[str]) -> str:
    """Name a load by some columns, of ``LOAD_POINT`` and ``keeps_prefix_cache``: ``1024 in, 256 out``."""
    words = (_RUN_WORDS[bool(row[RUN])] if name == RUN else _LOAD_WORDS[name](row[name]) for name in varying)
    return ", ".join(words)

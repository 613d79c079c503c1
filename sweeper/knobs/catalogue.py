"""What knobs there are: the type, unit and meaning of each, and the names that a release knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from sweeper.knobs.history import Run, flags, runs_of, variables
from sweeper.knobs.names import HOST_SETTINGS
from sweeper.knobs.release_order import releases
from sweeper.knobs.tables import table
from sweeper.records import INSTANCES


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A knob that experiments vary, declared with its unit and where its meaning was taken from.

    Attributes:
        name: As in an assignment.
        type: Of its values, and so of its column.
        unit: Of its values; empty for a switch or a name.
        meaning: What it does, in one line.
        minimum: Smallest value the engine takes, if it has one.
        maximum: Largest value the engine takes, if it has one.
        source: Where the meaning comes from.
    """

    name: str
    type: type
    unit: str
    meaning: str
    minimum: float | None
    maximum: float | None
    source: str


@cache
def declared_knobs() -> Mapping[str, Knob]:
    """Return the knobs that experiments vary, by name."""
    types = {"bool": bool, "int": int, "float": float, "str": str}
    return {
        row["knob"]: Knob(
            name=row["knob"],
            type=types[row["type"]],
            unit=row["unit"],
            meaning=row["meaning"],
            minimum=float(row["minimum"]) if row["minimum"] else None,
            maximum=float(row["maximum"]) if row["maximum"] else None,
            source=row["source"],
        )
        for row in table("knobs.csv")
    }


def takes_json(knob: str) -> bool:
    """Return whether a knob is a flag that takes an object in JSON, in any release."""
    return "json" in {run.kind for run in flags().get(knob, ())}


def known_names(release: str) -> frozenset[str]:
    """Collect every knob that this release has: flags, variables of vLLM, and settings of the host.

    Args:
        release: Release of vLLM.

    Returns:
        Names as an assignment spells them.
    """
    present = (
        name
        for table in (flags(), variables())
        for name, runs in table.items()
        if any(run.holds(release) for run in runs)
    )
    return frozenset([*present, *HOST_SETTINGS])


@cache
def every_name() -> frozenset[str]:
    """Collect the knobs of all releases, of the host, and ``instances``, which is our own."""
    return frozenset([*flags(), *variables(), *declared_knobs(), *HOST_SETTINGS, INSTANCES])


def knob_type(name: str) -> type | None:
    """Return the type of a knob's values, so that its column can be typed.

    Args:
        name: Knob as an assignment spells it.

    Returns:
        ``bool``, ``int``, ``float`` or ``str``; None where it is not known.
    """
    if name in declared_knobs():
        return declared_knobs()[name].type
    of_kind = {
        "boolean": bool,
        "switch": bool,
        "int": int,
        "float": float,
        "text": str,
        "list": str,
        "json": str,
    }
    kinds = [run.kind for run in flags().get(name, ()) if run.kind]
    return of_kind[kinds[-1]] if kinds else None


def describe(name: str) -> str:
    """Describe in one line what a knob is: its meaning, its unit, and the releases that have it.

    Args:
        name: Knob as an assignment spells it.

    Returns:
        Text without a line break; it says so when the knob is not known.
    """
    knob, runs = declared_knobs().get(name), runs_of(name)
    if knob is None and not runs:
        return f"{name}: not known"
    parts = [f"{knob.meaning} [{knob.unit}]" if knob.unit else knob.meaning] if knob else []
    if runs:
        parts.append("in vLLM " + ", ".join(_span(run) for run in runs))
    if knob:
        parts.append(f"source: {knob.source}")
    return f"{name}: " + "; ".join(parts)


def _span(run: Run) -> str:
    first, last = run.first or releases()[0], run.last or releases()[-1]
    return first if first == last else f"{first} to {last}"

"""The curves of a study for its page: what a GPU gives against what a user gets, over the users at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis import curve_pages, predicted
from analysis.browser.plain import Plain, number
from analysis.curve import BROKEN, OVERALL, PER_GPU, SPEEDS, Curve, curves, is_known
from analysis.curve_chart import PANELS, area_of, output_title, speed_title
from analysis.markdown import bare
from analysis.study import Study
from sweeper.records import users_text
from sweeper.text.printable import legible


def plain(study: Study, places: Mapping[str, int]) -> list[Plain]:
    """Gather the curves of a study, one per load.

    Args:
        study: The study.
        places: Setting to its place on the page.

    Returns:
        Of each ``title``, ``sentence`` (which point is named, and what its users get), ``note``, ``output``
        (title of that axis), ``least`` (output that a bound demands, or None), ``panels`` (``title``,
        ``axis`` and ``least`` of each speed) and ``points``: ``s`` (place), ``users``, ``said`` (these in
        words), ``out`` and ``speeds`` (each ``v``: mean, both ends and engine starts, and ``expected``: both
        ends that the model expects, or None; a speed that is not known is None), ``breaks``, ``counts`` (it
        takes part in frontiers) and ``named``.
    """
    return [_curve(found, study, places) for found in curves([study])]


def _curve(curve: Curve, study: Study, places: Mapping[str, int]) -> Plain:
    (name,) = dict.fromkeys(curve.points["study"])
    best = curve.best(name) if curve.bounds else None
    named = None if best is None else (best["setting"], best["users"])
    floors = _floors(curve)
    load = f" ({curve.load})" if curve.load else ""
    return {
        "title": legible(f"{curve_pages.title(curve)}{load}"),
        "sentence": legible(bare(curve_pages.sentence(curve, name))),
        "note": legible(curve_pages.bunched_text(curve)),
        "output": output_title(curve),
        "least": floors.get(PER_GPU),
        "panels": [
            {"title": PANELS[speed][0], "axis": speed_title(speed), "least": floors.get(speed)}
            for speed in SPEEDS
        ],
        "points": [
            {
                "s": places[row["setting"]],
                "users": int(row["users"]),
                "said": users_text(int(row["users"])),
                "out": _number(row, PER_GPU),
                "speeds": [_number(row, speed) if is_there else None for speed, is_there in known.items()],
                "breaks": legible(row["breaks"]),
                "counts": BROKEN not in row["breaks"],
                "named": (row["setting"], row["users"]) == named,
            }
            for row, known in zip(curve.points.to_dict("records"), _known(curve), strict=True)
            if row["setting"] in places and known[OVERALL]
        ],
    }


def _known(curve: Curve) -> list[dict[str, bool]]:
    """Return of each point which speeds are known."""
    by_speed = {speed: is_known(curve.points, speed).tolist() for speed in SPEEDS}
    return [dict(zip(SPEEDS, each, strict=True)) for each in zip(*by_speed.values(), strict=True)]


def _floors(curve: Curve) -> dict[str, float]:
    """Return of each axis below what value a bound rules points out: the highest of several."""
    found: dict[str, float] = {}
    for bound in curve.bounds:
        axis, value = area_of(bound, unit=curve.unit) or ("", 0.0)
        if axis:
            found[axis] = max(value, found.get(axis, 0.0))
    return found


def _number(row: Mapping[Any, Any], name: str) -> Plain:
    """Return a number, its interval over starts of an engine, and the one that the model expects."""
    low, high, least, most = (
        number(row[f"{name}_{end}"]) for end in ("low", "high", predicted.LOW, predicted.HIGH)
    )
    return {
        "v": [number(row[name]), low, high, int(row["n"])],
        "expected": None if least is None or most is None else [least, most],
    }

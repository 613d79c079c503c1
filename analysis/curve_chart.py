"""The curve as a picture: what a user gets on one axis and a GPU on the other, a line per setting.

Two panels share the axis of GPUs: what a user gets while the answer streams, and over the whole request. A
line runs over the users at once, whose number stands at its points. Broad and pale behind the lines lies the
frontier of all settings; shaded is what a bound rules out, hollow a point that breaks one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import predicted, style, tables
from analysis.curve import BROKEN, OVERALL, PER_GPU, SPEEDS, STREAMING, Curve, frontier_column
from analysis.page import (
    Words,
    draw_legend,
    finish_value_axis,
    lay_legend,
    left_of,
    legend_width_in,
    make_page,
)
from analysis.point_labels import PointLabels
from sweeper.records import Constraint
from sweeper.records.metrics import BY_NAME

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = len(style.COLOURS)
"""Settings that have a colour; of more, those without a point on a frontier are drawn pale first."""

_WIDTH_IN, _HEIGHT_IN = 12.0, 4.6
_ROOM = 1.1
_FRONTIERS = ("#B8C1CC", "#F2C9A1", "#B9DDCF", "#D9C3DC")
PANELS = {
    STREAMING: ("While the answer streams", "1000 / median time per output token, ms"),
    OVERALL: ("Over the whole request, waiting included", "tokens of the run / users"),
}
"""Of each of ``SPEEDS``: the title of its panel, and how the speed is counted."""


Line = tuple[str, str]
"""A study and a setting."""


def draw(curve: Curve, *, words: Words) -> Figure:
    """Draw the curve of one load.

    Args:
        curve: Its points, at least one of them with numbers.
        words: Title, caption and other text around it.

    Returns:
        The figure; both axes of both panels begin at zero.
    """
    looks = _looks(curve)
    lines, signs = _lines(curve, looks), _signs(curve, looks)
    signs_in = legend_width_in([label for label, _ in signs])
    legend = lay_legend([label for label, _ in lines], width_in=_WIDTH_IN - signs_in)
    # One more for the titles of the panels.
    rows = max(legend.rows, len(signs)) + 1
    left_in = left_of(_furthest(curve.known(OVERALL), PER_GPU))
    page = make_page(words, width_in=_WIDTH_IN, plot_in=_HEIGHT_IN, legend_rows=rows, left_in=left_in)
    for panel, speed in zip(page.axes(len(SPEEDS)), SPEEDS, strict=True):
        _draw_panel(panel, curve, speed, looks)
    handles = [handle(label) for label, (_, handle) in zip(legend.labels, lines, strict=True)]
    draw_legend(page, handles, legend.columns)
    draw_legend(page, [handle(label) for label, handle in signs], 1, from_in=_WIDTH_IN - 0.5 - signs_in)
    return page.figure


def area_of(bound: Constraint, *, unit: str = "GPU") -> tuple[str, float] | None:
    """Return the axis on which a bound rules out what lies below a value, and the value.

    Returns:
        ``STREAMING`` and the speed of a user whose tokens come just within a bound on the time per output
        token; ``PER_GPU`` and the output of a GPU; None for a bound that is on neither axis. Where the bound
        is not on the median, as the axis is, points near the edge may lie on the other side of it.
    """
    metric = BY_NAME.get(bound.metric)
    if metric is not None and metric.latency == "tpot" and metric.statistic != "std" and bound.is_upper:
        return (STREAMING, 1000 / bound.limit) if bound.limit > 0 and bound.per is None else None
    is_output = bound.metric == "output_throughput_tok_per_s" and not bound.is_upper
    return (PER_GPU, bound.limit) if is_output and bound.per == "gpu" and unit == "GPU" else None


def output_title(curve: Curve) -> str:
    """Return the title of the axis of what is given in all."""
    per = {"endpoint": "of the endpoint"}.get(curve.unit, f"per {curve.unit}")
    return f"Output tokens per second {per}"


def speed_title(speed: str) -> str:
    """Return the title of the axis of what a user gets."""
    return f"Output tokens per second per user ({PANELS[speed][1]})"


def bounds_text(bounds: Sequence[Constraint]) -> str:
    """Name bounds: ``mean_tpot_ms <= 100 and p99_ttft_ms <= 2000``."""
    return " and ".join(bound.name for bound in bounds)


def _draw_panel(axes: Axes, curve: Curve, speed: str, looks: Mapping[Line, dict[str, Any]]) -> None:
    known = curve.known(speed)
    _finish_axes(axes, curve, known, speed)
    _shade(axes, curve, speed)
    for place, study in enumerate(dict.fromkeys(known["study"])):
        frontier = curve.frontier(speed)
        mine = frontier[frontier["study"] == study]
        axes.plot(mine[speed], mine[PER_GPU], zorder=1.5, **_frontier_look(place))
        _draw_predicted(axes, mine, speed)
    # Pale ones first: they lie under the others.
    for line in sorted(looks, key=lambda one: looks[one]["color"] != style.PALE):
        _draw_line(axes, _of(known, line), speed, looks[line])
    found = [point for study in _studies(curve) if curve.bounds and (point := curve.best(study)) is not None]
    rings = [
        (point[speed], point[PER_GPU]) for point in found if speed != STREAMING or not point["is_bunched"]
    ]
    for ring in rings:
        axes.plot(*ring, zorder=5, **_RING)
    labels = PointLabels(axes, zip(known[speed], known[PER_GPU], strict=True), rings=rings)
    frontier_first = known.sort_values(frontier_column(speed), ascending=False, kind="stable")
    for row in frontier_first.to_dict("records"):
        if looks[(row["study"], row["setting"])]["color"] != style.PALE:
            labels.write(str(row["users"]), (row[speed], row[PER_GPU]))


def _draw_line(axes: Axes, points: pd.DataFrame, speed: str, look: Mapping[str, Any]) -> None:
    ordered = points.sort_values("users")
    line = {name: value for name, value in look.items() if not name.startswith("marker")}
    axes.plot(ordered[speed], ordered[PER_GPU], zorder=3, marker="", **line)
    for breaks in (False, True):
        some = ordered[(ordered["breaks"] != "") == breaks]
        axes.plot(
            some[speed], some[PER_GPU], zorder=4, **{**look, "linestyle": "none"}, **_face(look, breaks)
        )
    spread = ordered.dropna(subset=[f"{speed}_low", f"{PER_GPU}_low"])
    if not spread.empty:
        axes.errorbar(
            spread[speed], spread[PER_GPU], xerr=_whiskers(spread, speed), yerr=_whiskers(spread, PER_GPU),
            fmt="none", ecolor=look["color"], elinewidth=0.9, capsize=2, zorder=2,
        )  # fmt: skip


def _draw_predicted(axes: Axes, frontier: pd.DataFrame, speed: str) -> None:
    """Draw what the model expects as dotted crosses at the two ends of a frontier.

    At every point they would be a net over the curve, and neighbours hardly differ in how sure they are; the
    data file has all.
    """
    ordered = frontier.sort_values("users")
    for row in ordered.iloc[sorted({0, len(ordered) - 1} if len(ordered) else set())].to_dict("records"):
        for name, other, vertical in ((PER_GPU, speed, True), (speed, PER_GPU, False)):
            ends = {end: row[f"{name}_{end}"] for end in (predicted.LOW, predicted.HIGH)}
            limit = (axes.get_ylim() if vertical else axes.get_xlim())[1]
            predicted.draw(axes, ends, row[other], limit=limit, vertical=vertical, moved=axes.transData)


def has_predicted(curve: Curve) -> bool:
    """Return whether any point has an interval that the model expects."""
    return bool(curve.points[f"{PER_GPU}_{predicted.HIGH}"].notna().any())


def predicted_text(curve: Curve) -> str:
    """Return what the dotted crosses are; empty where there is none."""
    high = {f"{PER_GPU}_{predicted.HIGH}": predicted.HIGH}
    told = predicted.caption(curve.points.rename(columns=high), with_arrows=True)
    return f"{told}. Drawn at the ends of the frontier." if told else ""


def _whiskers(points: pd.DataFrame, name: str) -> list[pd.Series[float]]:
    mean, low, high = (points[f"{name}{end}"].astype(float) for end in ("", "_low", "_high"))
    return [mean - low, high - mean]


def _finish_axes(axes: Axes, curve: Curve, known: pd.DataFrame, speed: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    title, _ = PANELS[speed]
    highest = _furthest(curve.known(OVERALL), PER_GPU)
    finish_value_axis(axes, output_title(curve), highest=highest, vertical=True, room=_ROOM)
    fastest = _furthest(known, speed)
    axes.set_xlim(0, fastest * _ROOM if fastest > 0 else 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.grid(axis="x")
    axes.set_xlabel(speed_title(speed))
    if speed != SPEEDS[0]:
        axes.set_ylabel("")
        axes.tick_params(axis="y", labelleft=False)
    if known.empty:
        axes.text(
            0.5, 0.5, "not known: answers of one token, or in bunches", **_MIDDLE, transform=axes.transAxes
        )
    # Above, where no point can lie under it.
    axes.text(0, 1.03, title, transform=axes.transAxes, ha="left", va="bottom", fontsize=10, weight="bold")


def _furthest(points: pd.DataFrame, name: str) -> float:
    """Return the highest of some points with the intervals that are drawn: cut off, one looks narrower."""
    drawn = points[f"{name}_high"].where(points[f"{PER_GPU}_low"].notna())
    return float(pd.concat([points[name], drawn]).astype(float).max())


def _shade(axes: Axes, curve: Curve, speed: str) -> None:
    """Shade what a bound rules out on this panel, up to the edge of it."""
    for bound in curve.bounds:
        axis, value = area_of(bound, unit=curve.unit) or ("", 0.0)
        if axis == speed:
            edge = min(value, axes.get_xlim()[1])
            axes.axvspan(0, edge, zorder=0.5, **_SHADE)
            axes.axvline(value, color=style.FAILED, linewidth=1.0, zorder=1) if edge == value else None
        elif axis == PER_GPU:
            edge = min(value, axes.get_ylim()[1])
            axes.axhspan(0, edge, zorder=0.5, **_SHADE)
            axes.axhline(value, color=style.FAILED, linewidth=1.0, zorder=1) if edge == value else None


# ---- looks ----

_SHADE: dict[str, Any] = {"facecolor": style.FAILED, "alpha": 0.09, "linewidth": 0}
_MIDDLE: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9, "color": style.FAINT_INK}
_RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 15,
    "markerfacecolor": "none",
    "markeredgecolor": style.INK,
    "markeredgewidth": 1.4,
    "linestyle": "none",
}


def _looks(curve: Curve) -> dict[Line, dict[str, Any]]:
    """Give each line its look: colours tell settings; of several studies, marks and dashes tell the study."""
    lines = list(dict.fromkeys(zip(curve.points["study"], curve.points["setting"], strict=True)))
    drawn = set(zip(curve.known(OVERALL)["study"], curve.known(OVERALL)["setting"], strict=True))
    lines = [line for line in lines if line in drawn]
    coloured = _coloured(curve, list(dict.fromkeys(setting for _, setting in lines)))
    studies = _studies(curve)
    found = {}
    for study, setting in lines:
        place = coloured.get(setting)
        told_by = place if len(studies) == 1 else studies.index(study)
        found[(study, setting)] = _line_look(place, (told_by or 0) % len(style.MARKERS))
    return found


def _coloured(curve: Curve, settings: Sequence[str]) -> dict[str, int]:
    """Return the place of each setting that has a colour: the first, and before them those on a frontier."""
    on_frontier = {setting for speed in reversed(SPEEDS) for setting in curve.frontier(speed)["setting"]}
    first = sorted(settings, key=lambda setting: setting not in on_frontier)[:MOST_LINES]
    chosen = [setting for setting in settings if setting in first]
    return {setting: place for place, setting in enumerate(chosen)}


def _line_look(place: int | None, mark: int) -> dict[str, Any]:
    if place is None:
        return {"color": style.PALE, "marker": ".", "markersize": 4, "linewidth": 0.9, "linestyle": "-"}
    return {
        "color": style.COLOURS[place],
        "marker": style.MARKERS[mark],
        "markersize": 6,
        "linewidth": 1.6,
        "linestyle": style.DASHES[mark],
    }


def _face(look: Mapping[str, Any], breaks: bool) -> dict[str, Any]:
    if breaks:
        return {"markerfacecolor": "white", "markeredgecolor": look["color"], "markeredgewidth": 1.4}
    return {"markeredgecolor": "white", "markeredgewidth": 0.7}


def _frontier_look(place: int) -> dict[str, Any]:
    return {
        "color": _FRONTIERS[place % len(_FRONTIERS)],
        "linewidth": 8,
        "alpha": 0.75,
        "solid_capstyle": "round",
        "solid_joinstyle": "round",
    }


# ---- legend ----


Entry = tuple[str, Callable[[str], Any]]
"""A label, and what makes its handle of it."""


def _lines(curve: Curve, looks: Mapping[Line, dict[str, Any]]) -> list[Entry]:
    """Return the entries of the settings."""
    several = len(_studies(curve)) > 1
    return [
        (_label(curve, line, with_study=several), _handle(**look, **_face(look, False)))
        for line, look in looks.items()
        if look["color"] != style.PALE
    ]


def _signs(curve: Curve, looks: Mapping[Line, dict[str, Any]]) -> list[Entry]:
    """Return the entries of everything else that is drawn."""
    from matplotlib.patches import Patch

    studies = _studies(curve)
    pale = [look for look in looks.values() if look["color"] == style.PALE]
    entries: list[Entry] = [(f"{len(pale)} other settings", _handle(**pale[0]))] if pale else []
    for place, study in enumerate(studies):
        of = study if len(studies) > 1 else "all settings"
        entries.append((f"frontier of {of}", _handle(**_frontier_look(place))))
    shaded = [bound for bound in curve.bounds if area_of(bound, unit=curve.unit)]
    if shaded:
        entries.append((f"outside {bounds_text(shaded)}", lambda label: Patch(label=label, **_SHADE)))
    if has_predicted(curve):
        entries.append((predicted.LABEL, _handle(**predicted.look_of())))
    if (curve.points["breaks"] != "").any():
        hollow = {"color": style.INK, "marker": "o", "markersize": 6, "linestyle": "none"}
        entries.append((f"breaks {_broken_text(curve)}", _handle(**hollow, **_face(hollow, True))))
    if curve.bounds and any(curve.best(study) for study in studies):
        entries.append((f"most per {curve.unit} within the bounds", _handle(**{**_RING, "markersize": 11})))
    return entries


def _broken_text(curve: Curve) -> str:
    """Name what hollow points break, of the bounds and the answers."""
    broken = " ".join(curve.points["breaks"])
    found = [bound.name for bound in curve.bounds if bound.name in broken]
    return " or ".join([*found, *(["the answers"] if BROKEN in broken else [])]) or "a bound at its load"


def _handle(**look: Any) -> Callable[[str], Any]:
    from matplotlib.lines import Line2D

    return lambda label: Line2D([], [], label=label, **look)


def _label(curve: Curve, line: Line, *, with_study: bool) -> str:
    """Name a line, and say where it has no point and why."""
    points = _of(curve.points, line)
    name = f"{line[0]}: {line[1]}" if with_study else line[1]
    missing = points[points[PER_GPU].isna() | points[OVERALL].isna()]
    if missing.empty:
        return name
    states = ", ".join(dict.fromkeys(tables.short_state(row) for row in missing.to_dict("records")))
    return f"{name} ({states} at {', '.join(str(users) for users in missing['users'])})"


def _of(points: pd.DataFrame, line: Line) -> pd.DataFrame:
    return points[(points["study"] == line[0]) & (points["setting"] == line[1])]


def _studies(curve: Curve) -> list[str]:
    return list(dict.fromkeys(str(study) for study in curve.points["study"]))

"""One trial's chart: how long its requests waited, by percentile and load point; shown next to the trial.

A mean hides what a bound is about. Here are the median and the tail of each latency, a line per load point,
and in the legend the throughput that they were paid for with.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import style
from analysis.lettering import drawn
from analysis.page import SIMULATED_BAND, Page, Words, draw_legend, finish_value_axis, lay_legend, make_page
from sweeper.records import LoadPoint, Provenance, TrialResult
from sweeper.records.metrics import PERCENTILE_NAMES, REQUEST_LATENCIES
from sweeper.records.plurals import amount
from sweeper.text.numbers import number_text
from sweeper.text.writing import write_answer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE_NAME = "latencies.png"

LATENCIES: Mapping[str, str] = {one.name: one.axis for one in REQUEST_LATENCIES if one.axis is not None}
"""Latencies that are drawn, a panel each, with the name of its axis."""

_WIDTH_IN = 10.5
_PLOT_IN = 2.6

Curves = Mapping[LoadPoint, Mapping[str, float]]
"""By load point, each percentile of each latency and the throughput: means over restarts and repeats."""


def write(result: TrialResult) -> Path | None:
    """Draw a finished trial's chart into its folder.

    Returns:
        The PNG, or None where the trial has no percentiles: it failed, or no request was timed by itself.
    """
    curves = curves_of(result)
    if not any(f"p50_{latency}_ms" in values for values in curves.values() for latency in LATENCIES):
        return None
    path = Path(result.spec.folder) / FILE_NAME
    with style.chart_style():
        figure = _draw(result, curves).figure
    # Seen in a browser: half the resolution of a chart for print, at half the cost per trial.
    return write_answer(path, style.rendered(figure, "png", dpi=100))


def curves_of(result: TrialResult) -> Curves:
    """Average a trial's measurements by load point; second runs are other curves than first ones."""
    names = (
        "request_throughput_per_s",
        *(f"{p}_{latency}_ms" for latency in LATENCIES for p in PERCENTILE_NAMES),
    )
    found: dict[LoadPoint, dict[str, float]] = {}
    for point in dict.fromkeys(measured.load_point for measured in result.measurements):
        here = [measured.metrics for measured in result.measurements if measured.load_point == point]
        values = {
            name: [v for metrics in here if (v := metrics.get(name)) is not None and math.isfinite(v)]
            for name in names
        }
        found[point] = {name: statistics.fmean(seen) for name, seen in values.items() if seen}
    return found


def _draw(result: TrialResult, curves: Curves) -> Page:
    from matplotlib.lines import Line2D

    legend = lay_legend([_label(point, values) for point, values in curves.items()], width_in=_WIDTH_IN)
    page = make_page(_words(result), width_in=_WIDTH_IN, plot_in=_PLOT_IN, legend_rows=legend.rows)
    handles = [
        Line2D([], [], label=label, color=_colour(place), marker=_marker(place))
        for place, label in enumerate(legend.labels)
    ]
    draw_legend(page, handles, legend.columns)
    left, width, gap = page.left, page.right - page.left, 0.075
    panel = (width - gap * (len(LATENCIES) - 1)) / len(LATENCIES)
    for place, (latency, title) in enumerate(LATENCIES.items()):
        rectangle = (left + place * (panel + gap), page.bottom, panel, page.top - page.bottom)
        _panel(page.figure.add_axes(rectangle), curves, latency, title)
    return page


def _panel(axes: Axes, curves: Curves, latency: str, title: str) -> None:
    columns = [f"{percentile}_{latency}_ms" for percentile in PERCENTILE_NAMES]
    for place, values in enumerate(curves.values()):
        heights = [values.get(column, float("nan")) for column in columns]
        look: dict[str, Any] = {"color": _colour(place), "marker": _marker(place)}
        axes.plot(range(len(columns)), heights, markersize=4.5, linewidth=1.5, **look)
    axes.set_xticks(range(len(columns)), PERCENTILE_NAMES)
    highest = max((values[c] for values in curves.values() for c in columns if c in values), default=0.0)
    finish_value_axis(axes, title, highest=highest, vertical=True, room=1.08)


def _label(point: LoadPoint, values: Mapping[str, float]) -> str:
    rate = values.get("request_throughput_per_s")
    return point.label if rate is None else f"{point.label}: {number_text(rate)} requests/s"


def _words(result: TrialResult) -> Words:
    is_simulated = result.provenance is Provenance.SIMULATED
    starts = len({measured.restart for measured in result.measurements})
    return Words(
        title="Latencies by percentile",
        note="lower is better",
        subtitle=drawn(result.spec.label, most=150),
        caption=f"Study {result.spec.study}, trial {result.spec.key}; {amount(starts, 'engine start')}, "
        f"{amount(len(result.measurements), 'client run')}; "
        f"{result.provenance}, {result.spec.model.name}.",
        band=SIMULATED_BAND if is_simulated else "",
    )


def _colour(place: int) -> str:
    return style.COLOURS[place % len(style.COLOURS)]


def _marker(place: int) -> str:
    return style.MARKERS[place % len(style.MARKERS)]

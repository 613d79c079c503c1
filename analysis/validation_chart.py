"""The chart of the validation page: predicted over published, a panel per metric, perfect on the diagonal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis import style
from analysis.page import Words, draw_legend, lay_legend, make_page
from sweeper.records.metrics import Kind, fitted
from sweeper.records.plurals import percent
from sweeper.text.writing import write_answer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_IN_SECONDS = {"mean_ttft_ms"}
_PANELS = {
    metric.name: (
        (metric.title.replace("(ms)", "(s)"), 1000.0) if metric.name in _IN_SECONDS else (metric.title, 1.0)
    )
    for metric in fitted(Kind.SERVER)
}
"""Metric to the title of its panel, and what a unit of the axis holds."""

_LABELS = {
    "intro_405b": "Introduction, 405B",
    "intro_70b": "Introduction, 70B",
    "case4_capture_len": "Case 4, capture length",
    "case5_amd_env": "Case 5, host and channels",
    "case6_kv_cache_dtype": "Case 6, FP8 KV cache",
    "case7_tensor_parallel": "Case 7, 8 GPUs",
    "case8_max_num_seqs": "Case 8, sequences",
}
_FIT_LABEL = "fitted: Cases 1 to 3, effects at 1000 QPS"
_BAND = 0.2


def write(table: pd.DataFrame, out: Path, *, name: str) -> list[Path]:
    """Draw ``validation.png`` and ``validation.svg`` into a folder.

    Args:
        table: As ``validation.compared`` gives it.
        out: The folder.
        name: Of the calibration, for the caption.
    """
    with style.chart_style():
        figure = draw(table, name=name)
    return [write_answer(out / f"validation.{form}", style.rendered(figure, form)) for form in ("png", "svg")]


def draw(table: pd.DataFrame, *, name: str) -> Figure:
    """Draw the chart."""
    from matplotlib.lines import Line2D

    others = [experiment for experiment in _LABELS if _is_shown(table, experiment)]
    labels = [_FIT_LABEL, *(_LABELS[experiment] for experiment in others)]
    legend = lay_legend(labels, width_in=12.0)
    words = Words(
        title="What the model says, over what was published",
        note="on the line is right",
        subtitle=f"Simulated MI300X, calibration {name}; {len(table)} figures, each one run",
        caption=f"Grey band: within {percent(_BAND)}. Bars: 95 % range of a reading; printed numbers have "
        'none. Both axes are logarithmic. Published: "Serving LLMs on AMD MI300X: Best Practices" '
        "(Embedded LLM and Hot Aisle, 2024-10-23).",
    )
    page = make_page(words, width_in=12.0, plot_in=3.6, legend_rows=legend.rows, left_in=0.6)
    looks = {experiment: (style.COLOURS[i], style.MARKERS[i]) for i, experiment in enumerate(others)}
    for axes, metric in zip(
        _panels(page.figure, page.left, page.bottom, page.right, page.top), _PANELS, strict=True
    ):
        _draw_panel(axes, table[table["metric"] == metric], metric, looks)
    handles = [Line2D([], [], linestyle="", marker="o", mfc="none", mec=style.FAINT_INK, label=_FIT_LABEL)]
    handles += [
        Line2D([], [], linestyle="", marker=marker, color=colour, label=_LABELS[experiment])
        for experiment, (colour, marker) in looks.items()
    ]
    draw_legend(page, handles, legend.columns)
    return page.figure


def _is_shown(table: pd.DataFrame, experiment: str) -> bool:
    return bool(((table["experiment"] == experiment) & (table["role"] == "validation")).any())


def _panels(figure: Figure, left: float, bottom: float, right: float, top: float) -> list[Axes]:
    """Make three square panels with room for the labels of each."""
    step = (right - left) / len(_PANELS)
    return [
        figure.add_axes((left + i * step, bottom, step * 0.86, (top - bottom) * 0.93))
        for i in range(len(_PANELS))
    ]


def _draw_panel(axes: Axes, table: pd.DataFrame, metric: str, looks: dict[str, tuple[str, str]]) -> None:
    title, unit = _PANELS[metric]
    values = pd.concat([table["published"], table["predicted"]]) / unit
    ends = [float(values.min()) / 1.3, float(values.max()) * 1.3]
    axes.set_title(title, fontsize=10, loc="left")
    axes.fill_between(
        ends,
        [e / (1 + _BAND) for e in ends],
        [e * (1 + _BAND) for e in ends],
        color=style.GRID,
        alpha=0.6,
        lw=0,
    )
    axes.plot(ends, ends, color=style.FAINT_INK, linewidth=0.9)
    for row in table.to_dict("records"):
        is_fit = row["role"] == "fit"
        colour, marker = (style.FAINT_INK, "o") if is_fit else looks[row["experiment"]]
        x, y = row["published"] / unit, row["predicted"] / unit
        if not pd.isna(row["low"]):
            axes.plot([row["low"] / unit, row["high"] / unit], [y, y], color=colour, linewidth=0.6, alpha=0.6)
        axes.plot(
            [x], [y], linestyle="", marker=marker, markersize=3.5 if is_fit else 5.5, markeredgecolor=colour,
            markerfacecolor="none" if is_fit else colour, markeredgewidth=0.8, zorder=2 if is_fit else 3,
        )  # fmt: skip
    _logarithmic(axes, ends)


def _logarithmic(axes: Axes, ends: list[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(ends[0], ends[1])
    axes.set_ylim(ends[0], ends[1])
    axes.set_xlabel("published")
    axes.set_ylabel("predicted")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(True)

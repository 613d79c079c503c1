"""What every chart shares: its page, the band of simulated numbers, the axis of values.

The parts of a page have their places in inches, so that title, legend and caption never cover the data.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis import style
from analysis.lettering import drawn, drawn_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIMULATED_BAND = "SIMULATED - no GPU was measured"
"""Stands in every chart of simulated numbers."""

_CHARACTER_IN = 0.073
_HANDLE_IN = 0.75
"""Width of a character and of the sign before it in a legend, inches."""
_TITLE_PT = 14.0
_TITLE_IN, _NOTE_IN, _GAP_IN = 0.126, 0.072, 0.15
"""Width of a character of the title and of the note beside it, and the gap between them, inches."""
_LONGEST_CAPTION = 2000
_LEFT_IN = 0.95
"""Room left of the data for the numbers of an axis and its title, inches."""
_AXIS_TITLE_IN, _AXIS_DIGIT_IN = 0.36, 0.088
"""Room for that title, and the width of a digit of those numbers; a comma is half as wide."""

Row = Mapping[Hashable, Any]
"""One row of a table, by column."""

_MOST_ACROSS = 5
"""Panels side by side, one for each load point, beyond which a chart is wider than a page can show."""

_BETWEEN_ROWS_IN = 0.75
"""Between two rows of such panels, inches."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric as a chart names it.

    Attributes:
        column: Its column in the store.
        title: Title of its chart and axis, with the unit.
        is_higher_better: Which way is good.
    """

    column: str
    title: str
    is_higher_better: bool


@dataclass(frozen=True, kw_only=True)
class Words:
    """Title, caption and other text around the data.

    Attributes:
        title: Of the chart.
        note: Which way is good, at the right of the title.
        subtitle: The question, under the title.
        caption: Sample and origin, under the chart.
        band: Text of the band, such as ``SIMULATED_BAND``; empty where nothing is simulated.
    """

    title: str
    note: str
    subtitle: str
    caption: str
    band: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A figure and the place of its data, as fractions of its width and height."""

    figure: Figure
    left: float
    bottom: float
    right: float
    top: float
    legend_corner: tuple[float, float]

    def axes(self, count: int, *, across: int | None = None, gap_in: float = 0.0) -> list[Axes]:
        """Make panels in the place of the data.

        Args:
            count: How many.
            across: Side by side; None takes all of them.
            gap_in: Between two rows of them, for titles and the names of axes, inches.
        """
        across = across or count
        gap_x, gap_y, down = 0.025, gap_in / self.figure.get_figheight(), -(-count // across)
        width = (self.right - self.left - gap_x * (across - 1)) / across
        height = (self.top - self.bottom - gap_y * (down - 1)) / down
        return [
            self.figure.add_axes(
                (
                    self.left + column * (width + gap_x),
                    self.top - height - row * (height + gap_y),
                    width,
                    height,
                )
            )
            for row, column in (divmod(place, across) for place in range(count))
        ]


def words_of(metric: Metric, *, subtitle: str, caption: str, is_simulated: bool) -> Words:
    """Word the page of one metric's chart."""
    return Words(
        title=metric.title,
        note="higher is better" if metric.is_higher_better else "lower is better",
        subtitle=subtitle,
        caption=caption,
        band=SIMULATED_BAND if is_simulated else "",
    )


@dataclass(frozen=True, kw_only=True)
class Legend:
    """How labels fit a page.

    Attributes:
        labels: The labels, long ones broken into lines: often only their ends differ.
        columns: Columns of the legend.
        rows: Lines of text that it takes.
    """

    labels: tuple[str, ...]
    columns: int
    rows: int


def legend_width_in(labels: Sequence[str]) -> float:
    """Return the width of a legend of one column, inches."""
    return _HANDLE_IN + _CHARACTER_IN * max((len(drawn(label)) for label in labels), default=0)


def lay_legend(labels: Sequence[str], *, width_in: float) -> Legend:
    """Fit labels into a page of some width (inches): up to three columns, or one of broken lines."""
    room_in = width_in - 0.5
    labels = [drawn(label) for label in labels]
    longest = max(len(label) for label in labels)
    columns = min(3, len(labels), int(room_in / (_HANDLE_IN + _CHARACTER_IN * longest)))
    if columns >= 1:
        return Legend(labels=tuple(labels), columns=columns, rows=math.ceil(len(labels) / columns))
    characters = int((room_in - _HANDLE_IN) / _CHARACTER_IN)
    broken = [drawn_lines(label, width=characters) for label in labels]
    return Legend(labels=tuple("\n".join(lines) for lines in broken), columns=1, rows=sum(map(len, broken)))


@dataclass(frozen=True, kw_only=True)
class ListLayout:
    """Where lists of the same settings stand: a panel for each load point, in rows of five.

    Attributes:
        names: Lines of each setting's name.
        panels: How many lists.
        row_in: Height of a setting, inches.
    """

    names: Sequence[Sequence[str]]
    panels: int
    row_in: float

    @property
    def left_in(self) -> float:
        """Room for the names, inches."""
        return 0.35 + 0.072 * max(len(line) for name in self.names for line in name)

    @property
    def width_in(self) -> float:
        """Width of the page, inches."""
        return max(9.0, self.left_in + 0.3 + 2.8 * self._across)

    @property
    def plot_in(self) -> float:
        """Height of all panels, inches."""
        down = -(-self.panels // self._across)
        return down * (0.3 + self.row_in * len(self.names)) + (down - 1) * _BETWEEN_ROWS_IN

    @property
    def _across(self) -> int:
        return min(self.panels, _MOST_ACROSS)

    def axes(self, page: Page) -> list[Axes]:
        """Make the panels."""
        return page.axes(self.panels, across=self._across, gap_in=_BETWEEN_ROWS_IN)

    def name_rows(self, panels: Sequence[Axes]) -> None:
        """Write the settings' names at the left of each row of panels, once all is drawn."""
        places, names = range(len(self.names)), ["\n".join(name) for name in self.names]
        for number, axes in enumerate(panels):
            is_first = number % self._across == 0
            axes.set_yticks(places, names if is_first else [""] * len(names))
            if is_first:
                axes.tick_params(axis="y", labelsize=8)


def make_page(
    words: Words,
    *,
    width_in: float,
    plot_in: float,
    legend_rows: int,
    left_in: float = _LEFT_IN,
    ticks_in: float = 0.0,
) -> Page:
    """Lay out a page.

    Args:
        words: Title, caption and other text around the data.
        width_in: Width of the page, inches.
        plot_in: Height of the data, inches.
        legend_rows: Rows of its legend; 0 leaves room for titles of panels instead.
        left_in: Room left of the data, inches.
        ticks_in: Room below the data for further lines of its names, inches.
    """
    from matplotlib.figure import Figure

    lines = drawn_lines(words.caption, width=int((width_in - 0.5) * 15.5), most=_LONGEST_CAPTION)
    question = drawn_lines(words.subtitle, width=int((width_in - 0.5) * 12.5))
    below_in = 0.62 + 0.16 * len(lines) + ticks_in
    title, note, room_in = drawn(words.title, most=90), drawn(words.note), width_in - 0.5
    if note and _TITLE_IN * len(title) + _NOTE_IN * len(note) + _GAP_IN > room_in:
        # It does not fit at the right of the title.
        question, note = [*question, note], ""
    head_in = 0.68 + 0.17 * (len(question) - 1)
    band_in = 0.34 if words.band else 0.0
    legend_in = 0.22 * legend_rows + (0.12 if legend_rows else 0.3)
    height_in = below_in + plot_in + legend_in + band_in + head_in
    figure = Figure(figsize=(width_in, height_in), facecolor="white")
    margin = 0.25 / width_in
    size = min(_TITLE_PT, _TITLE_PT * room_in / (_TITLE_IN * max(len(title), 1)))
    figure.text(margin, 1 - 0.16 / height_in, title, fontsize=size, weight="bold", va="top")
    figure.text(
        1 - margin,
        1 - 0.21 / height_in,
        note,
        fontsize=9,
        va="top",
        ha="right",
        color=style.FAINT_INK,
    )
    figure.text(
        margin,
        1 - 0.43 / height_in,
        "\n".join(question),
        fontsize=9.5,
        va="top",
        color=style.FAINT_INK,
        linespacing=1.3,
    )
    if words.band:
        _band(figure, drawn(words.band), bottom=1 - (head_in + 0.27) / height_in, height=0.27 / height_in)
    figure.text(
        margin, 0.12 / height_in, "\n".join(lines), fontsize=7.5, va="bottom", color=style.FAINT_INK,
        linespacing=1.35,
    )  # fmt: skip
    return Page(
        figure=figure,
        left=left_in / width_in,
        bottom=below_in / height_in,
        right=1 - margin,
        top=(below_in + plot_in) / height_in,
        legend_corner=(margin, 1 - (head_in + band_in + 0.04) / height_in),
    )


def _band(figure: Figure, text: str, *, bottom: float, height: float) -> None:
    from matplotlib.patches import Rectangle

    margin = 0.25 / figure.get_figwidth()
    figure.add_artist(
        Rectangle(
            (margin, bottom), 1 - 2 * margin, height, transform=figure.transFigure,
            facecolor=style.BAND_FACE, edgecolor=style.BAND_EDGE, linewidth=0.8,
        )
    )  # fmt: skip
    figure.text(0.5, bottom + height * 0.47, text, ha="center", va="center", fontsize=9.5, weight="bold")


def left_of(highest: float) -> float:
    """Return the room that an upright axis needs at its left up to its highest number, inches."""
    if not highest >= 1:
        return _LEFT_IN
    text = f"{10 ** math.floor(math.log10(highest)):,.10g}"
    width_in = _AXIS_DIGIT_IN * sum(0.5 if sign == "," else 1.0 for sign in text)
    return max(_LEFT_IN, _AXIS_TITLE_IN + width_in)


def draw_legend(page: Page, handles: list[Any], columns: int, *, from_in: float = 0.0) -> None:
    """Put a legend between title and data, so many inches right of the page's margin."""
    left, top = page.legend_corner
    corner = (left + from_in / page.figure.get_figwidth(), top)
    page.figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=corner, ncols=columns, fontsize=8.5,
        borderaxespad=0.0, handlelength=2.2, handleheight=1.1, columnspacing=1.8,
    )  # fmt: skip


def finish_value_axis(
    axes: Axes, title: str, *, highest: float, vertical: bool, room: float, lowest: float = 0.0
) -> None:
    """Let the axis of values hold zero, leave room above the highest, and name the unit.

    Args:
        axes: The panel.
        title: Name of the values, with the unit.
        highest: The highest value drawn; NaN where there is none.
        vertical: The values stand upright.
        room: How far the axis reaches, in multiples of the highest.
        lowest: The lowest value drawn where one is below zero; else 0, where the axis starts.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    upper = max(highest, 0.0) if highest > 0 or lowest < 0 else 1.0 / room
    spare = (room - 1) * (upper - lowest)
    limit, start = upper + spare, lowest - spare if lowest < 0 else 0.0
    ticks = FuncFormatter(lambda value, _: f"{value:,.10g}")
    if lowest < 0:
        line = axes.axhline if vertical else axes.axvline
        line(0, color=style.FAINT_INK, linewidth=0.8, zorder=2.5)
    if vertical:
        axes.set_ylim(start, limit)
        axes.set_ylabel(title)
        axes.yaxis.set_major_formatter(ticks)
        axes.grid(axis="y")
    else:
        axes.set_xlim(start, limit)
        axes.set_xlabel(title)
        axes.xaxis.set_major_formatter(ticks)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(axis="x")

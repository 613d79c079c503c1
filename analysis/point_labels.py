"""Numbers written at the points of a chart, each where it covers no other number and no point.

A chart with thirty points has clusters in which every number would lie on another. Each is tried at eight
places around its point; where all are taken it is left out, for the data next to the chart has it. A number
that stands at a point next to this one already is not written again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from analysis import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE_PT = 7.5
_WIDTH_OF_SIGN, _HEIGHT_OF_SIGN = 0.66, 1.0
"""Of a digit, in multiples of the type's size."""

_GAP_PT = 1.5
_MARK_PT = 4.0
_SAME_PT = 11.0
_AWAY = ((0, 1), (1, 1), (-1, -1), (1, -1), (-1, 1), (0, -1), (1, 0), (-1, 0))

Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in points of 1/72 inch."""


class PointLabels:
    """The numbers of one panel, whose axes have their final limits."""

    def __init__(self, axes: Axes, points: Iterable[tuple[float, float]]) -> None:
        self._axes = axes
        self._written: list[tuple[str, float, float]] = []
        self._taken: list[Box] = []
        left, bottom, right, top = (value * 72 / axes.figure.dpi for value in axes.bbox.extents)
        self._panel = (left, bottom, right, top)
        self._marks = [_around(*self._at(point), _MARK_PT, _MARK_PT) for point in points]

    def write(self, text: str, point: tuple[float, float], *, colour: str) -> bool:
        """Write a number at a point; return whether there was room for it, or need."""
        x, y = self._at(point)
        if any(
            text == other and abs(x - left) < _SAME_PT and abs(y - up) < _SAME_PT
            for other, left, up in self._written
        ):
            return False
        width, height = _SIZE_PT * _WIDTH_OF_SIGN * len(text), _SIZE_PT * _HEIGHT_OF_SIGN
        for right, up in _AWAY:
            away = (right * (_MARK_PT + 1.5 + width / 2), up * (_MARK_PT + 1.5 + height / 2))
            box = _around(x + away[0], y + away[1], width / 2 + _GAP_PT, height / 2)
            is_free = not any(_overlap(box, other) for other in (*self._taken, *self._marks))
            if is_free and _is_within(box, self._panel):
                self._put(text, point, away, colour)
                self._taken.append(box)
                self._written.append((text, x, y))
                return True
        return False

    def _put(self, text: str, point: tuple[float, float], away: tuple[float, float], colour: str) -> None:
        self._axes.annotate(
            text, point, xytext=away, textcoords="offset points", ha="center", va="center",
            fontsize=_SIZE_PT, color=style.INK, zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.4},
        )  # fmt: skip

    def _at(self, point: tuple[float, float]) -> tuple[float, float]:
        pixels = self._axes.transData.transform(point)
        dpi = self._axes.figure.dpi
        return float(pixels[0]) * 72 / dpi, float(pixels[1]) * 72 / dpi


def _around(x: float, y: float, half_width: float, half_height: float) -> Box:
    return (x - half_width, y - half_height, x + half_width, y + half_height)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _is_within(box: Box, panel: Box) -> bool:
    return box[0] >= panel[0] and box[1] >= panel[1] and box[2] <= panel[2] and box[3] <= panel[3]

"""Numbers written at the points of a chart, each where it covers no other number and no point.

A chart with thirty points has clusters in which every number would lie on another. Each is tried at places
around its point, the near ones first, where it covers nothing and no other point is nearer to it. Where there
is none it is left out, for the data next to the chart has it. A number that stands at a point next to this
one already is not written again.
"""

from __future__ import annotations

import math
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
_RING_PT = 8.0
_DISTANCES_PT = (5.5, 8.5)
_OVER_THE_EDGE_PT = 3.0
_AWAY = ((0, 1), (1, 1), (-1, -1), (1, -1), (-1, 1), (0, -1), (1, 0), (-1, 0))

Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in points of 1/72 inch."""


class PointLabels:
    """The numbers of one panel, in which all is drawn that has a say in its limits."""

    def __init__(
        self, axes: Axes, points: Iterable[tuple[float, float]], *, rings: Iterable[tuple[float, float]] = ()
    ) -> None:
        """Keep room for the points, and for the larger rings around some of them."""
        axes.get_xlim()  # works out limits that follow from what was drawn: places are wrong until then
        self._axes = axes
        self._written: list[tuple[str, float, float]] = []
        left, bottom, right, top = (value * 72 / axes.figure.dpi for value in axes.bbox.extents)
        self._panel = (left - _OVER_THE_EDGE_PT, bottom, right, top)
        self._points = [self._at(point) for point in points]
        self._taken = [_around(x, y, _MARK_PT, _MARK_PT) for x, y in self._points]
        self._taken += [_around(*self._at(ring), _RING_PT, _RING_PT) for ring in rings]

    def write(self, text: str, point: tuple[float, float]) -> bool:
        """Write a number at a point; return whether there was room for it, or need."""
        x, y = self._at(point)
        if any(
            text == other and abs(x - left) < _SAME_PT and abs(y - up) < _SAME_PT
            for other, left, up in self._written
        ):
            return False
        width, height = _SIZE_PT * _WIDTH_OF_SIGN * len(text), _SIZE_PT * _HEIGHT_OF_SIGN
        for far in _DISTANCES_PT:
            for right, up in _AWAY:
                away = (right * (far + width / 2), up * (far + height / 2))
                box = _around(x + away[0], y + away[1], width / 2 + _GAP_PT, height / 2)
                if self._is_free(box) and self._is_nearest((x, y), away):
                    self._put(text, point, away)
                    self._taken.append(box)
                    self._written.append((text, x, y))
                    return True
        return False

    def _is_free(self, box: Box) -> bool:
        return _is_within(box, self._panel) and not any(_overlap(box, other) for other in self._taken)

    def _is_nearest(self, own: tuple[float, float], away: tuple[float, float]) -> bool:
        """Return whether no other point is nearer to a number than its own."""
        x, y = own[0] + away[0], own[1] + away[1]
        return all(math.hypot(x - a, y - b) >= math.hypot(*away) - 0.1 for a, b in self._points)

    def _put(self, text: str, point: tuple[float, float], away: tuple[float, float]) -> None:
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

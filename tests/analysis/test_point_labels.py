"""Numbers at points: none covers another, and none is written twice beside itself."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.point_labels import PointLabels


@pytest.fixture
def axes() -> Axes:
    """A panel of 4 by 4 inches from 0 to 100: a unit is 2.88 points of type."""
    panel = Figure(figsize=(4, 4)).add_axes((0, 0, 1, 1))
    panel.set_xlim(0, 100)
    panel.set_ylim(0, 100)
    return panel


def test_numbers_of_points_that_lie_apart_are_all_written(axes: Axes) -> None:
    points = [(20.0, 20.0), (50.0, 50.0), (80.0, 80.0)]
    labels = PointLabels(axes, points)

    assert all(labels.write(str(place), point) for place, point in enumerate(points))
    assert [text.get_text() for text in axes.texts] == ["0", "1", "2"]


def test_same_number_is_written_once_for_points_that_lie_together(axes: Axes) -> None:
    labels = PointLabels(axes, [(50.0, 50.0), (51.0, 50.0)])

    assert labels.write("16", (50.0, 50.0))
    assert not labels.write("16", (51.0, 50.0))
    assert labels.write("64", (51.0, 50.0))


def test_number_without_room_is_left_out(axes: Axes) -> None:
    crowd = [(40.0 + x, 40.0 + y) for x in range(0, 21, 2) for y in range(0, 21, 2)]

    assert not PointLabels(axes, crowd).write("256", (50.0, 50.0))


def test_no_other_point_is_nearer_to_number_than_its_own(axes: Axes) -> None:
    # 12 points of type to the right of the first is a second: what stands between them would be of either.
    labels = PointLabels(axes, [(50.0, 50.0), (54.2, 50.0)], rings=[(54.2, 50.0)])

    assert labels.write("128", (50.0, 50.0))
    (text,) = axes.texts
    right, up = text.get_position()
    assert right <= 0 and (right, up) != (0, 0)


def test_number_stands_outside_ring(axes: Axes) -> None:
    labels = PointLabels(axes, [(50.0, 50.0)], rings=[(50.0, 50.0)])

    assert labels.write("64", (50.0, 50.0))
    # The ring reaches 8 points of type up, and half of the number 3.75 down.
    assert axes.texts[0].get_position() == (0.0, pytest.approx(12.25))


def test_numbers_stay_within_panel(axes: Axes) -> None:
    labels = PointLabels(axes, [(0.0, 100.0)])

    assert labels.write("1", (0.0, 100.0))
    # Of the eight places around the upper left corner only the one below and to the right is inside.
    (text,) = axes.texts
    right, up = text.get_position()
    assert right > 0 > up


def test_limits_that_follow_from_what_was_drawn_are_known() -> None:
    """Until somebody asks for them a panel goes from 0 to 1, where all of these points would be one."""
    panel = Figure(figsize=(4, 4)).add_axes((0, 0, 1, 1))
    points = [(1000.0 + 30 * place, 10.0 + place) for place in range(12)]
    panel.scatter(*zip(*points, strict=True))
    panel.margins(0.1)
    labels = PointLabels(panel, points)

    assert all(labels.write(str(place), point) for place, point in enumerate(points))

"""The control setting: one setting that is measured again and again while a study goes on.

A machine drifts: it heats up, another process starts, a cache fills. A setting whose every repetition should
give the same number shows that. The place of its repetitions is decided here, by how many of the study's
other trials have begun; what they say is read by the report.
"""

from __future__ import annotations

from sweeper.errors import ConfigError
from sweeper.space.space import Point, Space

BASE = "base"
"""Names the setting of the knobs that every trial has, with nothing of the space chosen."""


def positions(trials: int, *, every: int | None) -> tuple[int, ...]:
    """Return the places of the repetitions: each begins when so many other trials have begun.

    Args:
        trials: Other trials of the study.
        every: A repetition after so many of them, besides the first; None puts them at the start, in the
            middle and at the end.

    Returns:
        Counts, ascending; the first is 0 and the last is ``trials``, so that drift is seen over the whole.
    """
    if every is None:
        return tuple(sorted({0, trials // 2, trials}))
    return tuple(sorted({*range(0, trials, every), trials}))


def point_of(space: Space, name: str) -> Point:
    """Return the point of the control setting.

    Args:
        space: What varies.
        name: A series, whose searched knobs stay at the base's values, or ``BASE``.

    Raises:
        ConfigError: There is no such series.
    """
    if name == BASE:
        return space.point({})
    known = [series.name for series in space.series]
    if name not in known:
        raise ConfigError(
            f"study.control: '{name}' is no setting of this study; expected "
            f"{', '.join([*known, BASE])}. Choose one of them."
        )
    return space.point({"series": name})

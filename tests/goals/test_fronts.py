"""Pareto fronts beside what their definition says, with ties and with any number of objectives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sweeper.goals.objectives import front, fronts
from sweeper.records import Objective

DIRECTIONS = st.lists(st.sampled_from(["maximize", "minimize"]), min_size=1, max_size=4)


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[int, tuple[float, ...]], tuple[Objective, ...]]:
    goals = tuple(
        Objective(metric=f"m{place}", direction=direction) for place, direction in enumerate(draw(DIRECTIONS))
    )
    # Few values, so that many are alike.
    one = st.tuples(*[st.integers(0, 4).map(float)] * len(goals))
    return dict(enumerate(draw(st.lists(one, max_size=25)))), goals


def is_beaten(key: int, values: dict[int, tuple[float, ...]], goals: tuple[Objective, ...]) -> bool:
    def ranked(told: tuple[float, ...]) -> list[float]:
        return [
            value if goal.direction == "maximize" else -value for goal, value in zip(goals, told, strict=True)
        ]

    mine = ranked(values[key])
    others = [ranked(told) for told in values.values()]
    return any(other != mine and all(a >= b for a, b in zip(other, mine, strict=True)) for other in others)


@given(cases())
def test_front_is_what_no_other_beats(
    case: tuple[dict[int, tuple[float, ...]], tuple[Objective, ...]],
) -> None:
    values, goals = case
    assert front(values, objectives=goals) == [key for key in values if not is_beaten(key, values, goals)]


@given(cases())
def test_each_front_is_what_is_left_unbeaten_by_the_rest(
    case: tuple[dict[int, tuple[float, ...]], tuple[Objective, ...]],
) -> None:
    values, goals = case
    left = dict(values)
    for found in fronts(values, objectives=goals):
        assert set(found) == {key for key in left if not is_beaten(key, left, goals)}
        left = {key: told for key, told in left.items() if key not in set(found)}
    assert not left

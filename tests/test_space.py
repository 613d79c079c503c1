"""Points of a space, and the rules that forbid some of them."""

from __future__ import annotations

import pytest

from sweeper.errors import ConfigError
from sweeper.space import Choice, Range, Rule, Series, Space


def two_series() -> Space:
    return Space(
        base={"tensor_parallel_size": 4, "num_scheduler_steps": 1},
        series=(
            Series(name="default", label="Default", knobs={}),
            Series(name="steps", label="10 steps", knobs={"num_scheduler_steps": 10}),
        ),
        domains={"max_num_seqs": Choice(values=(64, 256))},
    )


def test_a_grid_is_every_series_with_every_choice() -> None:
    points = [(p.series, p.assignment["max_num_seqs"]) for p in two_series().grid()]
    assert points == [("default", 64), ("default", 256), ("steps", 64), ("steps", 256)]
    assert two_series().size() == 4


def test_a_series_overrides_the_base_and_a_choice_overrides_both() -> None:
    space = Space(
        base={"a": 1, "b": 1, "c": 1},
        series=(Series(name="s", label="s", knobs={"b": 2, "c": 2}),),
        domains={"c": Choice(values=(3,))},
    )
    assert next(space.grid()).assignment == {"a": 1, "b": 2, "c": 3}


def test_a_space_without_anything_to_vary_has_one_point() -> None:
    points = list(Space(base={"a": 1}).grid())
    assert [(p.choices, p.assignment, p.series) for p in points] == [({}, {"a": 1}, None)]


def test_a_point_of_an_unknown_series_is_refused() -> None:
    with pytest.raises(ConfigError, match="'stepz' is not a series; expected one of default, steps"):
        two_series().point({"series": "stepz"})


def test_knob_names_are_those_of_base_series_and_domains() -> None:
    assert two_series().knob_names() == {"tensor_parallel_size", "num_scheduler_steps", "max_num_seqs"}


def test_a_range_of_whole_numbers_can_be_enumerated() -> None:
    assert Range(low=1, high=7, step=3, is_int=True).values() == (1, 4, 7)
    assert Range(low=0.8, high=1.0, step=0.1).values() == pytest.approx((0.8, 0.9, 1.0))
    assert Range(low=1, high=3, is_int=True).values() == (1, 2, 3)


def test_a_continuous_range_has_no_grid() -> None:
    space = Space(domains={"gpu_memory_utilization": Range(low=0.8, high=0.95)})
    assert space.size() is None
    with pytest.raises(ConfigError, match=r"space\.knobs\.gpu_memory_utilization: a continuous"):
        list(space.grid())


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("a >= b", True),
        ("a < b", False),
        ("b <= a <= 8", True),
        ("not c or a == 1", False),
        ("not c or a == 8", True),
        ("a % b == 0 and a // b == 4", True),
        ("d in ('auto', 'fp8')", True),
        ("d not in ['auto']", False),
        ("a - b * 2 == 4", True),
        ("-a < 0", True),
        ("unset > 5", True),
    ],
)
def test_a_rule_is_a_comparison_of_knobs(rule: str, holds: bool) -> None:
    assert Rule(text=rule).holds({"a": 8, "b": 2, "c": True, "d": "auto"}) is holds


def test_the_first_broken_rule_is_named() -> None:
    space = Space(rules=(Rule(text="a > 0"), Rule(text="a > b")))
    assert space.broken_rule({"a": 1, "b": 0}) is None
    assert space.broken_rule({"a": 1, "b": 2}) == "a > b"


@pytest.mark.parametrize(
    "rule", ["__import__('os')", "a.real > 0", "[x for x in (1,)]", "a[0] > 1", "lambda: 1"]
)
def test_a_rule_cannot_call_or_reach_into_objects(rule: str) -> None:
    with pytest.raises(ConfigError, match="expected only knob names, values"):
        Rule(text=rule)


def test_a_rule_that_is_no_expression_is_refused() -> None:
    with pytest.raises(ConfigError, match="'a >' is not an expression"):
        Rule(text="a >")


def test_a_rule_that_compares_a_text_with_a_number_says_so() -> None:
    with pytest.raises(ConfigError, match="'a > 1' cannot be computed"):
        Rule(text="a > 1").holds({"a": "many"})

"""Points of a space, and the rules that forbid some of them."""

from __future__ import annotations

import pytest

from sweeper.errors import ConfigError
from sweeper.space.domains import Choice, Range
from sweeper.space.random_point import value_at
from sweeper.space.rules import Rule
from sweeper.space.space import Series, Space


def two_series() -> Space:
    return Space(
        base={"tensor_parallel_size": 4, "num_scheduler_steps": 1},
        series=(
            Series(name="default", label="Default", knobs={}),
            Series(name="steps", label="10 steps", knobs={"num_scheduler_steps": 10}),
        ),
        domains={"max_num_seqs": Choice(values=(64, 256))},
    )


def test_grid_is_every_series_with_every_choice() -> None:
    points = [(p.series, p.assignment["max_num_seqs"]) for p in two_series().grid()]
    assert points == [("default", 64), ("default", 256), ("steps", 64), ("steps", 256)]
    assert two_series().size() == 4


def test_series_overrides_base_and_choice_overrides_both() -> None:
    space = Space(
        base={"a": 1, "b": 1, "c": 1},
        series=(Series(name="s", label="s", knobs={"b": 2, "c": 2}),),
        domains={"c": Choice(values=(3,))},
    )
    assert next(space.grid()).assignment == {"a": 1, "b": 2, "c": 3}


def test_space_without_anything_to_vary_has_one_point() -> None:
    points = list(Space(base={"a": 1}).grid())
    assert [(p.choices, p.assignment, p.series) for p in points] == [({}, {"a": 1}, None)]


def test_point_of_unknown_series_is_refused() -> None:
    with pytest.raises(ConfigError, match="'stepz' is not a series; expected one of default, steps"):
        two_series().point({"series": "stepz"})


def test_knob_names_are_those_of_base_series_and_domains() -> None:
    assert two_series().knob_names() == {"tensor_parallel_size", "num_scheduler_steps", "max_num_seqs"}


def test_range_of_whole_numbers_can_be_enumerated() -> None:
    assert Range(low=1, high=7, step=3, is_int=True).values() == (1, 4, 7)
    assert Range(low=0.8, high=1.0, step=0.1).values() == pytest.approx((0.8, 0.9, 1.0))
    assert Range(low=1, high=3, is_int=True).values() == (1, 2, 3)


def test_steps_are_taken_as_they_are_written() -> None:
    space = Space(domains={"x": Range(low=0.7, high=0.95, step=0.05)}, rules=(Rule(text="x >= 0.9"),))
    kept = [p.assignment["x"] for p in space.grid() if space.broken_rule(p.assignment) is None]
    assert kept == [0.9, 0.95]
    # As Optuna adds the steps.
    assert space.point({"x": 0.7 + 4 * 0.05}).choices == {"x": 0.9}


def test_value_drawn_at_either_end_of_a_logarithm_is_within() -> None:
    domain = Range(low=0.1, high=3.0, log=True)
    assert all(0.1 <= float(value_at(domain, share)) <= 3.0 for share in (0.0, 1.0))


def test_continuous_range_has_no_grid() -> None:
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
def test_rule_is_comparison_of_knobs(rule: str, holds: bool) -> None:
    assert Rule(text=rule).holds({"a": 8, "b": 2, "c": True, "d": "auto"}) is holds


def test_first_broken_rule_is_named() -> None:
    space = Space(rules=(Rule(text="a > 0"), Rule(text="a > b")))
    assert space.broken_rule({"a": 1, "b": 0}) is None
    assert space.broken_rule({"a": 1, "b": 2}) == "a > b"


@pytest.mark.parametrize(
    "rule", ["__import__('os')", "a.real > 0", "[x for x in (1,)]", "a[0] > 1", "lambda: 1"]
)
def test_rule_cannot_call_or_reach_into_objects(rule: str) -> None:
    with pytest.raises(ConfigError, match="expected only knob names, values"):
        Rule(text=rule)


def test_rule_that_is_no_expression_is_refused() -> None:
    with pytest.raises(ConfigError, match="'a >' is not an expression"):
        Rule(text="a >")


def test_rule_that_compares_text_with_number_says_so() -> None:
    with pytest.raises(ConfigError, match="'a > 1' cannot be computed"):
        Rule(text="a > 1").holds({"a": "many"})


CHUNKED = Space(
    base={"max_num_batched_tokens": 2048},
    domains={
        "max_num_batched_tokens": Choice(values=(256, 512)),
        "enable_chunked_prefill": Choice(values=(True, False)),
    },
    conditions={
        "max_num_batched_tokens": Rule(
            text="enable_chunked_prefill == true", where="space.knobs.max_num_batched_tokens.when"
        )
    },
)


def test_knob_is_in_space_only_where_its_condition_holds_and_no_point_counts_twice() -> None:
    # 2 x 2 combinations; without chunks the two sizes are the same point: 3 are left.
    assert [dict(point.choices) for point in CHUNKED.grid()] == [
        {"max_num_batched_tokens": 256, "enable_chunked_prefill": True},
        {"enable_chunked_prefill": False},
        {"max_num_batched_tokens": 512, "enable_chunked_prefill": True},
    ]
    assert CHUNKED.size() == 4


def test_proposal_that_differs_in_absent_knob_alone_is_same_point() -> None:
    proposed = [
        CHUNKED.point({"max_num_batched_tokens": size, "enable_chunked_prefill": False})
        for size in (256, 512)
    ]
    assert proposed[0] == proposed[1]
    # Absent is unset: the base's own value would be one of a setting that has no such thing.
    assert proposed[0].assignment == {"enable_chunked_prefill": False}


def test_knob_that_hangs_on_absent_one_is_absent_too() -> None:
    space = Space(
        domains={name: Choice(values=(1, 2)) for name in ("c", "b", "a")},
        conditions={"c": Rule(text="b == 2"), "b": Rule(text="a == 2")},
    )
    assert space.domain_order() == ("a", "b", "c")
    assert space.point({"a": 1, "b": 2, "c": 1}).choices == {"a": 1}
    # a=1; a=2 with b=1; a=2 with b=2 and c=1 or 2
    assert len(list(space.grid())) == 4


def test_condition_on_no_knob_of_space_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"n\.when: names 'enable', which is no knob.*one of enabled, n\. Did"
    ):
        Space(
            base={"enabled": True},
            domains={"n": Choice(values=(1,))},
            conditions={"n": Rule(text="enable", where="space.knobs.n.when")},
        )


def test_conditions_in_circle_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"space\.knobs\.a\.when: depends on a and b in a circle"):
        Space(
            domains={"a": Choice(values=(1,)), "b": Choice(values=(1,))},
            conditions={"a": Rule(text="b == 1"), "b": Rule(text="a == 1")},
        )


def test_broken_rule_says_its_message_and_looks_at_defaults() -> None:
    space = Space(rules=(Rule(text="tp * instances <= node_devices", message="one node"),))
    unsaid = {"instances": 1, "node_devices": 8}
    assert space.broken_rule({"tp": 8}, defaults=unsaid) is None
    assert space.broken_rule({"tp": 8, "instances": 2}, defaults=unsaid) == (
        "one node (tp * instances <= node_devices)"
    )

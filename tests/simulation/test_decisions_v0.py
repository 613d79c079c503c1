"""Our model of V0 held against decisions that vLLM's own engine loop took, step by step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.simulation.rules import NEWEST_V0, v0_rules_of
from tests.conftest import ROOT
from tests.simulation.scheduler_workloads import compared, ours, read
from tests.simulation.scheduler_workloads_v0 import cases, together

RECORDED = ROOT / "tests" / "recorded" / "vllm_scheduler" / "v0"
FILES = sorted(RECORDED.glob("*.json.gz"))

TOGETHER = sorted((RECORDED / "together").glob("*.json.gz"))

NOT_ALIKE = {"0.6.2": ["kept, equal prompts"]}
"""Workloads whose steps are not all alike, by release; docs/scheduler.md says why."""


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_every_step_is_scheduled_as_vllm_does(path: Path) -> None:
    decisions = read(path)
    found = list(compared(decisions, cases()))
    assert [one.name for one in found if one.first_other] == NOT_ALIKE.get(decisions["release"], [])
    steps, alike = sum(one.steps for one in found), sum(one.alike for one in found)
    assert len(found) >= 10
    assert steps >= 10_000
    assert alike >= 0.99 * steps
    # Otherwise the hard part would not have been looked at.
    assert sum(one.preemptions > 0 for one in found) >= 5
    assert sum(one.found_tokens > 0 for one in found) >= 5


@pytest.mark.parametrize("path", TOGETHER, ids=[path.name for path in TOGETHER])
def test_several_steps_with_chunked_prefill_are_scheduled_as_vllm_does(path: Path) -> None:
    found = list(compared(read(path), together()))
    # Of two blocks that have been unused equally long vLLM gives away the one with the lower number.
    assert [one.name for one in found if one.first_other] == ["kept, preempting"]
    steps, alike = sum(one.steps for one in found), sum(one.alike for one in found)
    assert steps >= 10_000
    assert alike >= steps - 1
    assert sum(one.preemptions > 0 for one in found) >= 5
    assert sum(one.found_tokens > 0 for one in found) >= 4


def test_decisions_of_three_releases_were_recorded() -> None:
    assert [path.name for path in FILES] == ["0.6.2.json.gz", "0.6.6.json.gz", "0.8.5.json.gz"]
    # 0.6.2 refuses several steps with chunked prefill.
    assert [path.name for path in TOGETHER] == ["0.6.6.json.gz", "0.8.5.json.gz"]


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("budgets_found", "kept, chunked, shared prefixes"),
        ("finds_answers", "kept, conversations"),
        ("looks_again", "kept, shared prefixes"),
        ("computes_late", "kept, chunked, long equal prompts"),
        ("spares_last", "kept, prompts of whole blocks"),
        ("counts_begun", "chunked, prompts of whole blocks, preempting"),
    ],
)
def test_each_rule_of_releases_makes_a_difference(rule: str, name: str) -> None:
    case = next(case for case in cases() if case.name == name)
    other = replace(NEWEST_V0, **{rule: not getattr(NEWEST_V0, rule)})
    assert ours(case, rules=NEWEST_V0) != ours(case, rules=other)


def test_rules_change_with_releases_and_with_several_steps() -> None:
    assert v0_rules_of("0.8.5") == v0_rules_of("0.6.6") == NEWEST_V0
    assert v0_rules_of("0.6.2").computes_late
    assert not v0_rules_of("0.6.2", scheduler_steps=10).computes_late
    assert v0_rules_of("0.6.2", scheduler_steps=10).budgets_found


def test_answers_that_are_read_late_keep_their_place_for_one_more_step() -> None:
    case = next(case for case in cases() if case.name == "bursts")
    at_once = replace(case, config=replace(case.config, async_output=False))
    assert ours(case, rules=NEWEST_V0) != ours(at_once, rules=NEWEST_V0)

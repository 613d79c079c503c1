"""Our scheduler held against decisions that vLLM's own took, step by step (``scheduler_workloads``)."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.simulation.rules import NEWEST, rules_of
from tests.conftest import ROOT
from tests.simulation.scheduler_workloads import as_json, cases, compared, ours, read

RECORDED = ROOT / "tests" / "recorded" / "vllm_scheduler"
FILES = sorted(RECORDED.glob("*.json.gz"))


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_every_step_is_scheduled_as_vllm_does(path: Path) -> None:
    found = list(compared(read(path), cases()))
    others = {one.name: one.first_other for one in found if one.first_other}
    assert not others
    assert len(found) >= 10
    assert sum(one.alike for one in found) == sum(one.steps for one in found) >= 10_000
    # Otherwise the hard part would not have been looked at.
    assert sum(one.preemptions > 0 for one in found) >= 5
    assert sum(one.found_tokens > 0 for one in found) >= 5


def test_decisions_of_two_releases_were_recorded() -> None:
    assert [path.name for path in FILES] == ["0.11.0.json.gz", "0.32.0.json.gz"]


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("reserves_prompts", "long prompts, small cache"),
        ("is_plain_first", "shared prefixes, small cache"),
        ("spares_lone", "long prefill threshold, one at a time"),
        ("skips_uncut", "without chunked prefill"),
        ("obeys_uncut", "without chunked prefill"),
    ],
)
def test_each_rule_of_releases_makes_a_difference(rule: str, name: str) -> None:
    case = next(case for case in cases() if case.name == name)
    other = replace(NEWEST, **{rule: not getattr(NEWEST, rule)})
    assert ours(case, rules=NEWEST) != ours(case, rules=other)


def test_rules_change_with_releases() -> None:
    assert rules_of("0.32.0") == NEWEST
    old = rules_of("0.11.0")
    assert (old.skips_uncut, old.reserves_prompts, old.is_plain_first, old.spares_lone) == (
        True,
        False,
        False,
        False,
    )
    assert not rules_of("0.8.5").obeys_uncut


@pytest.mark.vllm
def test_vllm_that_is_installed_decides_as_recorded_and_as_ours(vllm_python: str, tmp_path: Path) -> None:
    workloads, decisions = tmp_path / "workloads.json", tmp_path / "decisions.json.gz"
    workloads.write_text(json.dumps([as_json(case) for case in cases()]), encoding="utf-8")
    driver = ROOT / "benchmarks" / "scheduler_decisions.py"
    subprocess.run(
        [vllm_python, str(driver), str(workloads), str(decisions)],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        timeout=600,
    )
    found = read(decisions)
    assert not [one for one in compared(found, cases()) if one.first_other]
    recorded = RECORDED / f"{found['release']}.json.gz"
    assert not recorded.exists() or read(recorded) == found

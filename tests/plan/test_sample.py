"""A look over a search's space: what can run, what is refused and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.plan.planner import Planner
from sweeper.plan.sample import survey
from sweeper.records import Model
from sweeper.space.domains import Choice, Range
from sweeper.space.rules import Rule
from sweeper.space.space import Space
from tests.stand_ins import planner_of_three_series

SPACE = Space(
    base={"max_model_len": 4096},
    domains={
        "tensor_parallel_size": Choice(values=(4, 8, 16)),
        "max_num_seqs": Choice(values=(16, 64)),
        "enable_chunked_prefill": Choice(values=(False, True)),
        "max_num_batched_tokens": Choice(values=(32, 512)),
    },
    rules=(Rule(text="max_num_batched_tokens >= max_num_seqs", message="a step must hold its sequences"),),
    conditions={"max_num_batched_tokens": Rule(text="enable_chunked_prefill == true")},
)


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    return replace(planner_of_three_series(tmp_path, llama_70b), space=SPACE)


def test_small_space_is_looked_at_whole(planner: Planner) -> None:
    found = survey(planner, seed=0)
    # 3 x 2 x 2 x 2 combinations. Without chunked prefill there are no batched tokens to choose: 3 x 2 (1 + 2)
    # = 18 settings.
    assert (found.combinations, found.is_whole, found.looked_at) == (24, True, 18)
    # With it 32 tokens for 64 sequences break the rule, at each of 3 sizes; of the other 15 the 5 of size 16
    # need more than the node's 8 devices.
    assert len(found.jobs) == 10
    assert [(alike.count, alike.is_same) for alike in found.refusals] == [(5, True), (3, True)]
    assert "needs 16 devices" in found.refusals[0].reason
    assert "a step must hold its sequences" in found.refusals[1].reason


def test_reasons_that_differ_in_their_numbers_alone_are_one(planner: Planner) -> None:
    space = replace(
        SPACE,
        domains={
            "tensor_parallel_size": Choice(values=(1, 2)),
            "gpu_memory_utilization": Choice(values=(0.05, 0.06)),
        },
        rules=(),
        conditions={},
    )
    found = survey(replace(planner, space=space), seed=0)
    # 131 GiB of weights are in no twentieth of 192 GiB, and of 2 x 192 GiB neither.
    [alike] = found.refusals
    assert (alike.count, alike.is_same, found.jobs) == (4, False, ())
    assert alike.reason.startswith("does not fit in memory: weights")


def test_large_or_endless_space_is_drawn_from_with_its_seed(planner: Planner) -> None:
    domains = {
        "tensor_parallel_size": Choice(values=(4,)),
        "max_num_seqs": Range(low=1, high=10_000, log=True, is_int=True),
        "gpu_memory_utilization": Range(low=0.8, high=0.9),
    }
    space = replace(SPACE, domains=domains, rules=(), conditions={})
    found = survey(replace(planner, space=space), seed=3, limit=20)
    assert (found.combinations, found.is_whole, found.looked_at) == (None, False, 20)
    numbers = [job.spec.assignment["max_num_seqs"] for job in found.jobs]
    assert all(isinstance(n, int) and 1 <= n <= 10_000 for n in numbers)
    again = survey(replace(planner, space=space), seed=3, limit=20)
    assert [job.spec.key for job in again.jobs] == [job.spec.key for job in found.jobs]
    other = survey(replace(planner, space=space), seed=4, limit=20)
    assert {job.spec.key for job in other.jobs} != {job.spec.key for job in found.jobs}

"""Which trials of a study share a start (`engine.live`), and why others do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.errors import ConfigError
from sweeper.plan import finalists
from sweeper.plan.live import SharedStarts, on_largest_start, search_line, shared_starts
from sweeper.plan.planner import Planner
from sweeper.records import ClientSpec, EngineSpec, Model, Platform
from sweeper.space.domains import Choice
from sweeper.space.rules import Rule
from sweeper.space.space import Series, Space
from sweeper.topology import Device, Node
from tests.stand_ins import planner_of_three_series

SPACE = Space(
    base={"max_num_seqs": 256, "max_num_batched_tokens": 8192, "max_model_len": 2048},
    series=(
        Series(name="base", label="base", knobs={}),
        Series(name="few", label="few", knobs={"max_num_seqs": 32}),
        Series(name="eager", label="eager", knobs={"enforce_eager": True}),
        Series(name="many", label="many", knobs={"max_num_seqs": 512, "max_num_batched_tokens": 4096}),
    ),
)
START = {"max_num_seqs": 512, "max_num_batched_tokens": 8192, "max_model_len": 2048}


@pytest.fixture
def planner(tmp_path: Path, llama_70b: Model) -> Planner:
    gpu = Device(index=0, parent=0, partition_id=0, name="A GPU", memory_gib=800.0)
    return replace(
        planner_of_three_series(tmp_path, llama_70b),
        space=SPACE,
        engine=EngineSpec(kind="vllm", release="0.26.0", python="/vllm/bin/python"),
        platform=Platform.CUDA,
        accelerator="cuda",
        node=Node(host="here", platform=Platform.CUDA, devices=(gpu,), source="a test"),
        live="auto",
    )


def shared(planner: Planner) -> SharedStarts:
    return shared_starts(planner, planner.grid())


def test_settings_that_differ_in_limits_share_largest_start(planner: Planner) -> None:
    found = shared(planner)
    starts = {job.spec.label: job.spec.live_start for job in found.jobs}
    assert starts == {"base": START, "few": START, "eager": None, "many": START}
    assert found.starts == ((START, 3),)
    assert found.lines == (
        "3 settings on one start with max_num_batched_tokens 8192, max_num_seqs 512",
        "on a start of its own: eager: no other setting differs from it in limits of the scheduler alone",
    )
    assert len({job.spec.start_key for job in found.jobs}) == 1 + 1


def test_shared_trial_is_another_trial_than_one_of_its_own_start(planner: Planner) -> None:
    fresh = {job.spec.label: job.spec for job in planner.grid()}
    for job in shared(planner).jobs:
        is_shared = job.spec.label != "eager"
        assert (job.spec.key != fresh[job.spec.label].key) == is_shared
        assert job.spec.folder == f"{planner.trials_folder}/{job.spec.key}"
        assert job.spec.fresh == fresh[job.spec.label]


def test_larger_start_serves_same_trial(planner: Planner) -> None:
    more = Series(name="more", label="more", knobs={"max_num_seqs": 1024})
    grown = shared(replace(planner, space=replace(SPACE, series=(*SPACE.series, more))))
    keys = {job.spec.label: job.spec.key for job in shared(planner).jobs}
    assert keys.items() <= {job.spec.label: job.spec.key for job in grown.jobs}.items()
    assert grown.jobs[0].spec.start_key != shared(planner).jobs[0].spec.start_key


def test_nothing_is_shared_without_being_asked_for(planner: Planner) -> None:
    found = shared(replace(planner, live="false"))
    assert [job.spec for job in found.jobs] == [job.spec for job in planner.grid()]
    assert found.lines == ()


def test_setting_measured_on_start_of_its_own_is_not_measured_again(planner: Planner) -> None:
    stored = {job.spec.key for job in planner.grid() if job.spec.label == "few"}
    found = shared_starts(planner, planner.grid(), is_measured=stored.__contains__)
    assert {job.spec.label for job in found.jobs if job.spec.live_start is None} == {"few", "eager"}


def test_setting_measured_in_both_ways_is_one_finalist(planner: Planner) -> None:
    fresh, live = planner.grid(), shared(planner).jobs
    keys = [live[1].spec.key, fresh[1].spec.key, fresh[0].spec.key, "of another study"]
    for jobs in (fresh, live):
        assert [
            job.spec.label for job in finalists.settings_of(keys, {job.spec.key: job for job in jobs})
        ] == ["few", "base"]


def test_last_of_a_start_that_the_store_holds_is_not_measured_again(planner: Planner) -> None:
    alone = [job for job in planner.grid() if job.spec.label == "few"]
    (before,) = (job.spec.key for job in shared(planner).jobs if job.spec.label == "few")
    assert alone[0].spec.shared_key == before
    (again,) = shared_starts(planner, alone, is_measured={before}.__contains__).jobs
    assert again.spec.key == before
    (fresh,) = shared_starts(planner, alone).jobs
    assert fresh.spec.live_start is None


def test_search_has_start_at_largest_of_what_varies(planner: Planner) -> None:
    domains = {"max_num_seqs": Choice(values=(8, 64)), "enforce_eager": Choice(values=(True, False))}
    planner = replace(planner, space=replace(SPACE, series=(), domains=domains))
    jobs = [on_largest_start(planner, job) for job in planner.grid()]
    starts = {(job.spec.live_start or {})["max_num_seqs"] for job in jobs}
    assert starts == {64}
    assert len({job.spec.start_key for job in jobs}) == len(
        {job.spec.assignment["enforce_eager"] for job in jobs}
    )
    assert (
        search_line(planner)
        == "settings that differ in max_num_seqs alone share a start at the largest of each"
    )
    fresh = replace(planner, repeats=2)
    assert on_largest_start(fresh, fresh.grid()[0]).spec.live_start is None
    assert "every setting on a start of its own: repeats=2" in str(search_line(fresh))
    with pytest.raises(ConfigError, match="settings of this search cannot share a start: repeats=2"):
        search_line(replace(fresh, live="true"))
    assert search_line(replace(planner, live="false")) is None
    base = {**SPACE.base, "max_num_seqs": 8}
    ruled = replace(planner, space=replace(planner.space, base=base, rules=(Rule(text="max_num_seqs < 50"),)))
    assert "the start that they would share is refused: breaks the rule" in str(search_line(ruled))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"repeats": 3}, "repeats=3 asks for starts of each setting"),
        ({"client": ClientSpec(kind="offline")}, "client.kind=offline starts the engine itself"),
        ({"fresh_because": "case1 is compared"}, "case1 is compared"),
        ({"engine": EngineSpec(kind="vllm", release="0.6.2")}, "vLLM 0.6.2 is before 0.9.1"),
        (
            {"space": replace(SPACE, base={**SPACE.base, "data_parallel_size": 1, "instances": 1})},
            "instances",
        ),
    ],
)
def test_why_nothing_can_be_shared(planner: Planner, changes: dict[str, object], reason: str) -> None:
    planner = replace(planner, **changes)  # type: ignore[arg-type]
    found = shared(planner)
    assert all(job.spec.live_start is None for job in found.jobs)
    assert found.lines[0] == "no settings share a start"
    assert reason in found.lines[1]
    with pytest.raises(ConfigError, match=r"engine\.live: is true, and 'base' cannot share a start"):
        shared(replace(planner, live="true"))


def test_true_shares_what_auto_shares(planner: Planner) -> None:
    assert shared(replace(planner, live="true")).jobs == shared(planner).jobs


def test_start_that_is_refused_is_not_shared(planner: Planner) -> None:
    # Each setting is fine; together they ask for more sequences than tokens of a step.
    rules = Space(
        base={"max_model_len": 2048},
        series=(
            Series(name="one", label="one", knobs={"max_num_seqs": 512, "max_num_batched_tokens": 2048}),
            Series(name="two", label="two", knobs={"max_num_seqs": 8, "max_num_batched_tokens": 8192}),
        ),
        rules=(Rule(text="max_num_seqs * max_num_batched_tokens < 4000000"),),
    )
    found = shared(replace(planner, space=rules))
    assert all(job.spec.live_start is None for job in found.jobs)
    assert "the start that they would share is refused: breaks the rule" in found.lines[1]


def test_finalists_are_measured_on_starts_of_their_own(planner: Planner) -> None:
    jobs = shared(planner).jobs
    default = planner.default()
    for job in (job for starts in finalists.rounds(jobs[:2], default, repeats=2, seed=0) for job in starts):
        assert job.spec.live_start is None
        assert job.spec.folder.endswith(job.spec.key)
    # The default is one of them, whatever start the search measured it on.
    assert len(finalists.rounds(jobs[:2], default, repeats=1, seed=0)[0]) == len(("few", "default"))

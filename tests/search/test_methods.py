"""What each method proposes: never twice the same, and each in its own way."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.engines.log_verdict import why_it_ended
from sweeper.errors import ConfigError
from sweeper.records import Assignment, Objective
from sweeper.search import Hints, Search, check_method, check_stages, check_starts, guided, storage_url
from sweeper.search.candidates import Geometry, identity, neighbours, pool
from sweeper.search.distributions import distributions, to_optuna
from sweeper.search.out_of_memory import is_doomed, is_out_of_memory
from sweeper.search.prior import Ranking
from sweeper.search.proposer import Proposer, lending, quiet
from sweeper.search.samplers import sampler
from sweeper.search.starts import default_choices, starting_points
from sweeper.space.domains import Choice, Range
from sweeper.space.rules import Rule
from sweeper.space.space import Point, Space

SMALL = Space(
    domains={"a": Choice(values=(1, 2, 4)), "b": Choice(values=(True, False))},
    rules=(Rule(text="b or a < 4"),),
)
WIDE = Space(domains={name: Choice(values=tuple(range(8))) for name in ("a", "b", "c")})
METHODS = ("random", "tpe", "nsga2", "guided", "staged")


def best_at_corner(point: Point) -> float:
    """Larger is better in every knob: 21 at (7, 7, 7), its best."""
    return float(sum(float(value) for value in point.choices.values()))


def trial_of(space: Space, choices: Assignment, value: float | None, **attributes: object) -> FrozenTrial:
    params = to_optuna(choices)
    known = distributions(space)
    return create_trial(
        state=TrialState.FAIL if value is None else TrialState.COMPLETE,
        value=value,
        params=params,
        distributions={name: known[name] for name in params},
        user_attrs=dict(attributes),
    )


def proposer(space: Space, method: str, **more: object) -> Proposer:
    return Proposer(space=space, directions=[StudyDirection.MAXIMIZE], method=method, seed=0, **more)  # type: ignore[arg-type]


def walked(
    asked: Proposer, space: Space, count: int, value: Callable[[Point], float | None]
) -> list[FrozenTrial]:
    told: list[FrozenTrial] = []
    while len(told) < count:
        proposal = asked.propose(told)
        if proposal is None:
            break
        told.append(trial_of(space, proposal.point.choices, value(proposal.point)))
    return told


def values(trials: Sequence[FrozenTrial]) -> list[float]:
    return [trial.value for trial in trials if trial.value is not None]


@pytest.mark.parametrize("method", METHODS)
def test_every_valid_point_is_proposed_once_and_then_no_more(method: str) -> None:
    told = walked(proposer(SMALL, method), SMALL, 20, lambda point: 1.0)
    # 3 x 2 combinations, of which (4, False) breaks the rule.
    seen = [(trial.params["a"], trial.params["b"]) for trial in told]
    assert sorted(seen) == [(1, False), (1, True), (2, False), (2, True), (4, True)]


def test_parallel_asks_of_study_are_all_different(tmp_path: Path) -> None:
    search = Search(
        storage=storage_url(tmp_path),
        name="study",
        space=SMALL,
        objectives=(Objective(metric="request_throughput_per_s", direction="maximize"),),
        method="tpe",
        seed=0,
    )
    asked = [search.ask() for _ in range(5)]
    assert len({identity(one.point) for one in asked if one is not None}) == 5
    assert search.ask() is None
    assert search.counts()["running"] == 5


def test_point_that_was_cut_off_is_free_again() -> None:
    one = Space(domains={"a": Choice(values=(1,))})
    assert proposer(one, "random").propose([trial_of(one, {"a": 1}, None, interrupted=True)]) is not None
    assert proposer(one, "random").propose([trial_of(one, {"a": 1}, None)]) is None


def test_space_without_valid_point_shows_what_refuses_it() -> None:
    refused = Space(domains={"a": Choice(values=(1, 2))}, rules=(Rule(text="a > 2"),))
    for method in METHODS:
        proposal = proposer(refused, method).propose([])
        assert proposal is not None
        assert refused.broken_rule(proposal.point.assignment) == "a > 2"


def test_wrong_method_and_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'annealing' is not a method; expected one of grid, random, tpe"):
        check_method("annealing")
    monkeypatch.setattr(
        "sweeper.search.samplers.find_spec",
        lambda name: None if name == "torch" else importlib.util.find_spec("json"),
    )
    with pytest.raises(ConfigError, match=r"'gp' needs torch, which is not installed.*pip install.*\[gp\]"):
        check_method("gp")


def test_guided_finds_best_of_512_without_ranking() -> None:
    told = walked(proposer(WIDE, "guided"), WIDE, 30, best_at_corner)
    # At random the best of 30 out of 512 is on average the 17th, at 18 or below.
    assert max(values(told)) >= 20


def test_guided_begins_at_top_of_ranking() -> None:
    asked = proposer(WIDE, "guided", estimate=lambda point: [best_at_corner(point)])
    first = asked.propose([])
    assert first is not None
    assert first.point.choices == {"a": 7, "b": 7, "c": 7}


def test_guided_leaves_ranking_that_proves_wrong() -> None:
    # It expects the worst of the best: its favourite, (0, 0, 0), is worth 0.
    asked = proposer(WIDE, "guided", estimate=lambda point: [-best_at_corner(point)])
    told = walked(asked, WIDE, 30, best_at_corner)
    assert told[0].value == 0.0
    assert max(values(told)) >= 20


def test_guided_spreads_over_front_of_two_objectives() -> None:
    line = Space(domains={"x": Choice(values=tuple(range(21)))})
    asked = Proposer(
        space=line,
        directions=[StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE],
        method="guided",
        seed=0,
    )
    told: list[FrozenTrial] = []
    known = distributions(line)
    for _ in range(12):
        proposal = asked.propose(told)
        assert proposal is not None
        x = float(proposal.point.choices["x"])
        # Both grow with x: every point is on the front.
        trial = create_trial(values=[x, x * x], params=dict(proposal.point.choices), distributions=known)
        told.append(trial)
    seen = sorted(trial.params["x"] for trial in told)
    assert seen[-1] - seen[0] >= 10


def test_guided_keeps_away_from_what_fails() -> None:
    # Everything with a above 3 fails; without the failures in mind it would go on there, where b and c are.
    told = walked(
        proposer(WIDE, "guided"), WIDE, 40, lambda p: None if float(p.choices["a"]) > 3 else best_at_corner(p)
    )
    late = told[-15:]
    assert sum(trial.value is None for trial in late) <= 7


def test_ranking_gives_equal_expectations_equal_places() -> None:
    points = pool(WIDE, np.random.default_rng(0))
    ranking = Ranking(lambda point: None if point.choices["a"] == 7 else [float(point.choices["a"])], points)
    places = ranking.scores([WIDE.point({"a": a, "b": 0, "c": 0}) for a in (0, 1, 6, 7)])
    # 448 points are expected to work, 64 for each a below 7: places are the middles 32, 96 and 416 of 448.
    assert places.tolist() == pytest.approx([32 / 448, 96 / 448, 416 / 448, 0.0])


def test_stages_search_their_own_knobs_and_keep_best_of_one_before() -> None:
    asked = proposer(WIDE, "staged", trials=17, stage_knobs=[["a"], ["b"]])
    told = [trial_of(WIDE, {"a": 0, "b": 0, "c": 0}, 0.0, is_start=True)]
    while len(told) < 17:
        proposal = asked.propose(told)
        assert proposal is not None
        told.append(trial_of(WIDE, proposal.point.choices, best_at_corner(proposal.point)))
    # 16 trials over three stages: five for a, five for b of which the best of a is the first, the rest for c.
    first, second, third = told[1:6], told[6:10], told[10:]
    assert all((t.params["b"], t.params["c"]) == (0, 0) for t in first)
    best_a = max(t.params["a"] for t in told[:6])
    assert all((t.params["a"], t.params["c"]) == (best_a, 0) for t in second)
    best_b = max(t.params["b"] for t in told[:10])
    assert all((t.params["a"], t.params["b"]) == (best_a, best_b) for t in third)


def test_stage_whose_points_are_used_up_hands_over() -> None:
    asked = proposer(SMALL, "staged", trials=40, stage_knobs=[["b"], ["a"]])
    told = [trial_of(SMALL, {"a": 1, "b": True}, 1.0, is_start=True)]
    for _ in range(2):
        proposal = asked.propose(told)
        assert proposal is not None
        told.append(trial_of(SMALL, proposal.point.choices, 0.5))
    assert told[1].params == {"a": 1, "b": False}
    assert told[2].params["a"] > 1


def test_stages_name_knobs_that_vary_each_once() -> None:
    with pytest.raises(ConfigError, match=r"search\.stages: 'd' is not varied; expected.*a, b, c"):
        check_stages([["a"], ["d"]], WIDE)
    with pytest.raises(ConfigError, match="'a' stands there twice"):
        check_stages([["a"], ["b", "a"]], WIDE)


@pytest.mark.parametrize(
    ("line", "is_lesson"),
    [
        ("torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB.", True),
        ("ValueError: Free memory on device (3.49/191.98 GiB) on startup is less than "
         "desired GPU memory utilization (0.9, 172.79 GiB).", False),
        ("AssertionError: Error in memory profiling. Initial free memory 82.94 GiB, now 90.17 GiB.", False),
        ("triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 81920", False),
        ("OSError: [Errno 28] No space left on device", False),
    ],
)  # fmt: skip
def test_only_engine_that_itself_ran_out_of_memory_is_lesson(line: str, is_lesson: bool) -> None:
    death = why_it_ended(line, exit_code=1, was_ready=False)
    assert is_out_of_memory({"fail_reason": f"{death.failure}: {death.message}"}) is is_lesson


def test_running_out_of_memory_teaches_whoever_needs_as_much() -> None:
    failed = {"max_num_seqs": 256, "tensor_parallel_size": 2, "dtype": "auto", "NCCL_MIN_NCHANNELS": 32}
    assert is_doomed({**failed, "max_num_seqs": 512}, [failed])
    assert is_doomed({**failed, "tensor_parallel_size": 1, "NCCL_MIN_NCHANNELS": 112}, [failed])
    assert not is_doomed({**failed, "max_num_seqs": 512, "tensor_parallel_size": 4}, [failed])
    assert not is_doomed({**failed, "max_num_seqs": 128}, [failed])
    # What could change memory in either direction has to be equal.
    assert not is_doomed({**failed, "max_num_seqs": 512, "dtype": "half"}, [failed])
    assert not is_doomed({**failed, "gpu_memory_utilization": 0.95}, [failed])


@pytest.mark.parametrize("method", METHODS)
def test_search_holds_back_what_failure_dooms(method: str) -> None:
    space = Space(domains={"max_num_seqs": Choice(values=(64, 128, 256, 512))})
    failed = trial_of(space, {"max_num_seqs": 128}, None, fail_reason="out_of_memory: HIP out of memory")
    asked = proposer(space, method)
    only = asked.propose([failed])
    assert only is not None
    assert only.point.choices == {"max_num_seqs": 64}
    assert asked.propose([failed, trial_of(space, only.point.choices, 1.0)]) is None


@pytest.mark.parametrize("method", METHODS)
def test_failure_that_was_mended_dooms_nothing(method: str) -> None:
    space = Space(domains={"max_num_seqs": Choice(values=(128, 256))})
    failed = trial_of(space, {"max_num_seqs": 128}, None, fail_reason="out_of_memory: HIP out of memory")
    asked = proposer(space, method)
    assert asked.propose([failed]) is None
    found = asked.propose([failed, trial_of(space, {"max_num_seqs": 128}, 1.0)])
    assert found is not None
    assert found.point.choices == {"max_num_seqs": 256}


def test_crash_teaches_nothing_about_others() -> None:
    space = Space(domains={"max_num_seqs": Choice(values=(64, 128))})
    failed = trial_of(space, {"max_num_seqs": 64}, None, fail_reason="crash: the engine died")
    proposal = proposer(space, "random").propose([failed])
    assert proposal is not None
    assert proposal.point.choices == {"max_num_seqs": 128}


def test_search_starts_with_defaults_then_what_is_given_then_what_is_expected() -> None:
    ranking = Ranking(lambda point: [best_at_corner(point)], pool(WIDE, np.random.default_rng(0)))
    found = starting_points(
        WIDE,
        defaults={"a": 3, "b": 99},
        given=[{"c": 5}, {"a": 3}],
        ranking=lambda: ranking,
        pool=lambda: pool(WIDE, np.random.default_rng(0)),
    )
    # b has no such value as 99 and takes its first; the second given one is the defaults again.
    assert [tuple(point.choices[name] for name in "abc") for point in found] == [
        (3, 0, 0),
        (3, 0, 5),
        (7, 7, 7),
    ]


def test_defaults_take_base_before_engines_own() -> None:
    space = Space(
        base={"x": 8}, domains={"x": Range(low=2, high=16, is_int=True), "y": Choice(values=("p", "q"))}
    )
    assert default_choices(space, {"x": 4, "y": "q"}) == {"x": 8, "y": "q"}


def test_start_outside_of_space_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"search\.start\[0\]: 'z' is not varied"):
        check_starts([{"z": 1}], WIDE)
    with pytest.raises(
        ConfigError, match=r"search\.start\[1\]\.a: is 99, which space\.knobs\.a does not hold"
    ):
        check_starts([{"a": 1}, {"a": 99}], WIDE)


def test_starts_wait_in_study_so_that_kill_does_not_lose_them(tmp_path: Path) -> None:
    def opened() -> Search:
        return Search(
            storage=storage_url(tmp_path),
            name="study",
            space=WIDE,
            objectives=(Objective(metric="request_throughput_per_s", direction="maximize"),),
            method="guided",
            seed=0,
            hints=Hints(defaults={}, starts=({"a": 1}, {"a": 2})),
        )

    opened().ask()
    again = opened()
    asked = [again.ask() for _ in range(3)]
    # The first one was cut off and is repeated, after those that wait.
    assert [one.point.choices["a"] for one in asked if one is not None] == [1, 2, 0]


def test_neighbours_differ_in_one_knob() -> None:
    space = Space(domains={"a": Choice(values=(1, 2)), "x": Range(low=0, high=10, is_int=True)})
    near = {(p.choices["a"], p.choices["x"]) for p in neighbours(space, space.point({"a": 1, "x": 1}))}
    assert near == {(2, 1), (1, 0), (1, 2), (1, 3), (1, 4), (1, 5)}


CONDITIONAL = Space(
    domains={"a": Choice(values=("off", "on")), "b": Choice(values=(1, 2)), "c": Choice(values=(1, 2, 3))},
    conditions={"b": Rule(text="a == 'on'", where="space.knobs.b.when")},
)


@pytest.mark.parametrize("method", METHODS)
def test_knob_that_another_brings_into_the_space_always_has_a_value(method: str) -> None:
    points = {identity(point) for point in CONDITIONAL.grid()}
    asked = proposer(CONDITIONAL, method, trials=12, stage_knobs=[["a"], ["c"]])
    told = [trial_of(CONDITIONAL, {"a": "off", "c": 1}, 1.0, is_start=True)]
    while (proposal := asked.propose(told)) is not None:
        assert identity(proposal.point) in points
        told.append(trial_of(CONDITIONAL, proposal.point.choices, 2.0))
    # Two values of b where a is on, and none where it is off, each with three of c.
    assert len(told) == 9


def test_neighbour_that_brings_a_knob_in_is_whole() -> None:
    found = [point.choices for point in neighbours(CONDITIONAL, CONDITIONAL.point({"a": "off", "c": 1}))]
    assert found == [{"a": "on", "b": 1, "c": 1}, {"a": "off", "c": 2}, {"a": "off", "c": 3}]


def test_stage_keeps_its_best_that_takes_a_held_knob_out_of_the_space() -> None:
    space = replace(CONDITIONAL, domains={**CONDITIONAL.domains, "a": Choice(values=("off", "on", "auto"))})
    asked = proposer(space, "staged", trials=7, stage_knobs=[["a"], ["c"]])
    told = [
        trial_of(space, {"a": "on", "b": 2, "c": 1}, 1.0, is_start=True),
        # Without a there is no b, which the first stage holds at 2.
        trial_of(space, {"a": "off", "c": 1}, 9.0),
        trial_of(space, {"a": "auto", "c": 1}, 0.0),
    ]
    proposal = asked.propose(told)
    assert proposal is not None
    # The first stage has had its two trials.
    assert proposal.point.choices["a"] == "off"
    assert proposal.point.choices["c"] != 1


def test_default_that_a_domain_writes_in_another_way_is_its_point() -> None:
    space = Space(
        base={"gpu_memory_utilization": 0.9},
        domains={
            "gpu_memory_utilization": Range(low=0.7, high=0.95, step=0.05),
            "VLLM_ROCM_USE_AITER": Choice(values=(0, 1)),
        },
    )
    (first,) = starting_points(space, defaults={"VLLM_ROCM_USE_AITER": False})
    assert identity(first) in {identity(point) for point in space.grid()}
    assert str(first.assignment) == "{'gpu_memory_utilization': 0.9, 'VLLM_ROCM_USE_AITER': 0}"


@pytest.mark.parametrize("method", METHODS)
def test_steps_of_a_range_are_proposed_as_they_are_written(method: str) -> None:
    space = Space(domains={"x": Range(low=0.7, high=0.95, step=0.05)})
    told: list[FrozenTrial] = []
    asked, found = proposer(space, method), set()
    while (proposal := asked.propose(told)) is not None:
        found.add(proposal.point.assignment["x"])
        told.append(trial_of(space, proposal.point.choices, 1.0))
    assert found == {0.7, 0.75, 0.8, 0.85, 0.9, 0.95}


def test_large_space_is_represented_by_seeded_sample_of_valid_points() -> None:
    space = Space(
        domains={"x": Range(low=1, high=1000, log=True), "n": Range(low=1, high=100_000, is_int=True)},
        rules=(Rule(text="n > 50000"),),
    )
    one, two = (pool(space, np.random.default_rng(3)) for _ in range(2))
    assert len(one) == 1000
    assert one == two
    assert all(float(point.choices["n"]) > 50000 for point in one)
    assert len({identity(point) for point in one}) == 1000


def test_points_are_apart_by_places_of_their_numbers() -> None:
    space = Space(domains={"n": Choice(values=(64, 128, 256)), "kind": Choice(values=("p", "q", "r"))})
    geometry = Geometry.of(space)
    places = geometry.coordinates(
        [
            space.point({"n": 64, "kind": "p"}),
            space.point({"n": 128, "kind": "r"}),
            space.point({"kind": "p"}),
        ]
    )
    distances = geometry.distances(places[:1], places)
    # 128 is the second of three places; kinds are equal or not; what is left out is as far as can be.
    assert distances[0][0].tolist() == [0.0, 0.5, 1.0]
    assert distances[1][0].tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("method", ["tpe", "nsga2"])
def test_sampler_that_is_lent_trials_draws_as_from_a_study_that_holds_them(method: str) -> None:
    known = distributions(WIDE)
    drawn: list[tuple[dict[str, Any], dict[str, Any]]] = []
    ours, theirs = sampler(method, seed=1), sampler(method, seed=1)
    with quiet():
        for number in range(40):
            # The last two of them run.
            told = [
                create_trial(
                    state=TrialState.RUNNING if number - place <= 2 else TrialState.COMPLETE,
                    value=None if number - place <= 2 else float(sum(params.values())),
                    params=params,
                    distributions=known,
                    system_attrs=notes,
                )
                for place, (params, notes) in enumerate(drawn)
            ]
            holding = optuna.create_study(direction="maximize", sampler=theirs)
            holding.add_trials(told)
            asked = holding.ask(fixed_distributions=known)
            lent = lending(told, [StudyDirection.MAXIMIZE], ours)
            again = lent.ask(fixed_distributions=known)
            assert (again.params, again.number) == (asked.params, asked.number)
            drawn.append((asked.params, lent._storage.get_trial(again._trial_id).system_attrs))
    assert lent.get_trials(deepcopy=False)[0].params == drawn[0][0]


def test_lent_trials_are_never_changed() -> None:
    told = [trial_of(WIDE, {"a": 1, "b": 2, "c": 3}, 6.0)]
    numbers = [(trial.number, trial._trial_id) for trial in told]
    study = lending(told, [StudyDirection.MAXIMIZE], sampler("random", seed=0))
    with quiet():
        study.tell(study.ask(fixed_distributions=distributions(WIDE)), 1.0)
    assert [trial.value for trial in study.trials] == [6.0, 1.0]
    assert [(trial.number, trial._trial_id) for trial in told] == numbers


def test_guided_models_the_best_of_many_points_and_others_evenly() -> None:
    targets = np.random.default_rng(0).normal(size=3 * guided.MOST_MODELLED)
    kept = guided.telling(targets)
    assert len(kept) == len(set(kept)) == guided.MOST_MODELLED
    best = np.argsort(-targets)[: guided.MOST_MODELLED // 2]
    assert set(best) <= set(kept)
    # Of the others from the whole course: a third of them or so from each third.
    others = np.array(sorted(set(kept) - set(best)))
    thirds = np.bincount(others // guided.MOST_MODELLED, minlength=3)
    assert thirds.min() >= guided.MOST_MODELLED // 2 / 3 * 0.8
    few = targets[: guided.MOST_MODELLED]
    assert list(guided.telling(few)) == list(range(len(few)))


def test_guided_finds_the_best_among_more_points_than_it_models() -> None:
    line = Space(domains={"x": Choice(values=tuple(range(900))), "y": Choice(values=(0, 1))})
    rng = np.random.default_rng(0)
    told = [
        trial_of(line, {"x": int(x), "y": int(rng.integers(2))}, -abs(float(x) - 500.0))
        for x in rng.permutation(900)[: guided.MOST_MODELLED + 100]
        if abs(int(x) - 500) > 20
    ]
    proposal = proposer(line, "guided").propose(told)
    assert proposal is not None
    # Next to the nearest that was measured, or nearer.
    assert abs(float(proposal.point.choices["x"]) - 500) <= 30

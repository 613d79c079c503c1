"""What is expected of a point before it is measured: of its own load, cut short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from sweeper.plan.planner import Job
from sweeper.prepare.estimate import simulated_estimate
from sweeper.records import Constraint, LoadPoint, Objective, TrialSpec, UserSearch
from sweeper.simulation.device import USUAL_DEVICE
from sweeper.space.space import Point
from sweeper.topology import modelled_node

MOST_USERS = Objective(metric="max_users", direction="maximize")
CLOSED = LoadPoint(dataset="random", num_prompts=40, input_len=256, output_len=64, ignore_eos=True)


def expected(
    spec: TrialSpec,
    objective: Objective,
    load: LoadPoint,
    *others: Objective,
    constraints: Sequence[Constraint] = (),
    **knobs: int,
) -> Sequence[float] | None:
    """Return what is expected of a trial of this load with these knobs."""
    assignment = {**spec.assignment, **knobs}
    point = Point(choices=knobs, assignment=assignment, series=None)
    planned = replace(spec, assignment=assignment, load_points=(load,))
    estimate = simulated_estimate(
        lambda _: Job(spec=planned, points=(point,)),
        node=modelled_node(USUAL_DEVICE),
        device=USUAL_DEVICE,
        objectives=(objective, *others),
        constraints=constraints,
    )
    return estimate(point)


def test_setting_that_holds_more_users_is_expected_to(simulated_spec: TrialSpec) -> None:
    search = UserSearch(
        low=1, high=128, resolution=1, bounds=(("median_ttft_ms", 400.0),), prompts_per_user=10
    )
    load = replace(CLOSED, num_prompts=1280, user_search=search)
    (few,), (many,) = (
        expected(simulated_spec, MOST_USERS, load, max_num_seqs=seqs) or (0.0,) for seqs in (4, 64)
    )
    # Of users beyond the four that are served at once the others wait for a whole answer.
    assert 1 <= few < 16 < many


def test_latency_that_no_probe_tells_expects_nothing(simulated_spec: TrialSpec) -> None:
    search = UserSearch(low=1, high=8, resolution=1, bounds=(("p99_tpot_ms", 50.0),), prompts_per_user=2)
    one_token = replace(CLOSED, output_len=1, user_search=search)
    assert expected(simulated_spec, MOST_USERS, one_token) is None


def test_as_many_users_are_expected_to_work_as_load_has(simulated_spec: TrialSpec) -> None:
    wait = Objective(metric="mean_ttft_ms", direction="minimize")
    (few,), (many,) = (
        expected(
            simulated_spec,
            wait,
            replace(CLOSED, max_concurrency=users, num_prompts=10 * users),
            max_num_seqs=1024,
            max_num_batched_tokens=2048,
        )
        or (0.0,)
        for users in (250, 1000)
    )
    # Of four times as many users who begin at once each waits for four times as many prompts, or longer: cut
    # to 500 prompts, a thousand users would be half of themselves.
    assert many < 4 * few < 0


@pytest.mark.parametrize("metric", ["accuracy_loss_high", "accuracy", "energy_per_output_token_j"])
def test_what_is_not_modelled_leaves_points_to_the_other_goals(
    simulated_spec: TrialSpec, metric: str
) -> None:
    many = Objective(metric="request_throughput_per_s", direction="maximize")
    bound = Constraint(metric=metric, limit=0.0, is_upper=metric != "accuracy")
    other = Objective(metric=metric, direction="minimize")
    alone = expected(simulated_spec, many, CLOSED)
    assert alone is not None
    assert expected(simulated_spec, many, CLOSED, constraints=(bound,)) == alone
    assert expected(simulated_spec, many, CLOSED, other) == alone
    # By nothing of it.
    assert expected(simulated_spec, other, CLOSED) is None


def test_bound_that_is_modelled_and_broken_expects_nothing(simulated_spec: TrialSpec) -> None:
    many = Objective(metric="request_throughput_per_s", direction="maximize")
    bound = Constraint(metric="mean_ttft_ms", limit=0.001, is_upper=True)
    assert expected(simulated_spec, many, CLOSED, constraints=(bound,)) is None

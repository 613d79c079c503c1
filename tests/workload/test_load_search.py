"""The heaviest load that keeps its bounds: which rates or users are tried, and what is kept of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.errors import MeasurementError
from sweeper.records import LoadPoint, Measurement, Placement, RateSearch, TrialSpec, TrialState, UserSearch
from sweeper.trial.trial import run
from sweeper.workload.load_search import highest_step, measurements, usual_probes

SEARCH = RateSearch(low=2.0, high=10.0, resolution=1.0, bounds=(("p99_ttft_ms", 100.0),))
POINT = LoadPoint(dataset="random", num_prompts=8, input_len=32, output_len=8, rate_search=SEARCH)


class Server:
    """Serves with a latency that follows from the rate, and remembers what it was asked."""

    def __init__(self, *, keeps_up_to: float) -> None:
        self.keeps_up_to = keeps_up_to
        self.rates: list[float | None] = []

    def measure(self, point: LoadPoint) -> Measurement:
        self.rates.append(point.request_rate_per_s)
        is_kept = (point.request_rate_per_s or 0.0) <= self.keeps_up_to
        return Measurement(
            load_point=point,
            restart=0,
            repeat=0,
            metrics={"p99_ttft_ms": 100.0 if is_kept else 101.0},
            telemetry={},
            measured_s=1.0,
            client_overhead_s=0.0,
            started_at=0.0,
            ended_at=1.0,
        )


def answers(probes: tuple[Measurement, ...]) -> dict[float | None, float | None]:
    return {
        probe.load_point.request_rate_per_s: probe.metrics["max_rate_per_s"]
        for probe in probes
        if "max_rate_per_s" in probe.metrics
    }


def test_bisection_tries_both_ends_and_then_halves() -> None:
    server = Server(keeps_up_to=7.5)
    probes = measurements(POINT, server.measure)
    # Ends 2 and 10; then 6 keeps, 8 does not, 7 does: the edge lies between 7 and 8.
    assert server.rates == [2.0, 10.0, 6.0, 8.0, 7.0]
    assert answers(probes) == {7.0: 7.0}
    assert [probe.load_point.rate_search for probe in probes] == [SEARCH] * 5


def test_where_no_rate_keeps_bounds_answer_is_zero_after_one_probe() -> None:
    server = Server(keeps_up_to=1.0)
    assert answers(measurements(POINT, server.measure)) == {2.0: 0.0}
    assert server.rates == [2.0]


def test_where_all_rates_keep_bounds_answer_is_highest() -> None:
    server = Server(keeps_up_to=99.0)
    assert answers(measurements(POINT, server.measure)) == {10.0: 10.0}
    assert server.rates == [2.0, 10.0]


@pytest.mark.parametrize("edge", range(17))
def test_every_edge_is_found_in_about_log2_probes(edge: int) -> None:
    asked: list[int] = []

    def keeps(step: int) -> bool:
        asked.append(step)
        return step <= edge

    assert highest_step(17, keeps) == edge
    assert len(asked) == len(set(asked)) <= 2 + 4  # 17 steps: both ends, then 16 halved four times


def test_rates_are_written_as_people_write_them() -> None:
    tenths = RateSearch(low=0.1, high=0.5, resolution=0.1, bounds=())
    assert [tenths.value(step) for step in range(5)] == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_usual_probes_are_those_of_search_that_ends_in_middle() -> None:
    server = Server(keeps_up_to=6.0)
    measurements(POINT, server.measure)
    assert [probe.request_rate_per_s for probe in usual_probes(POINT)] == server.rates
    pinned = replace(POINT, rate_search=replace(SEARCH, high=2.0))
    assert [probe.request_rate_per_s for probe in usual_probes(pinned)] == [2.0]
    fixed = replace(POINT, rate_search=None)
    assert usual_probes(fixed) == (fixed,)


USERS = UserSearch(low=1, high=256, resolution=1, bounds=(("p99_tpot_ms", 50.0),), prompts_per_user=10)
CLOSED = LoadPoint(
    dataset="random", num_prompts=2560, input_len=32, output_len=8, ignore_eos=True, user_search=USERS
)


def served(point: LoadPoint) -> Measurement:
    """Serve up to 37 users within the bound: one millisecond per user, and 13 more."""
    return Measurement(
        load_point=point,
        restart=0,
        repeat=0,
        metrics={"p99_tpot_ms": 13.0 + (point.users or 0)},
        telemetry={},
        measured_s=1.0,
        client_overhead_s=0.0,
        started_at=0.0,
        ended_at=1.0,
    )


def test_most_users_are_found_each_with_prompts_of_their_own() -> None:
    probes = measurements(CLOSED, served)
    # 13 + 37 = 50 keeps the bound, 51 does not. Ends 1 and 256, then the middles of what is left.
    users = [probe.load_point.users for probe in probes]
    assert users == [1, 256, 128, 64, 32, 48, 40, 36, 38, 37]
    assert [probe.load_point.num_prompts for probe in probes] == [10 * (n or 0) for n in users]
    told = {p.load_point.users: p.metrics["max_users"] for p in probes if "max_users" in p.metrics}
    assert told == {37: 37}
    assert {probe.load_point.max_users_slo for probe in probes} == {"p99_tpot_ms <= 50"}
    assert {probe.load_point.max_rate_slo for probe in probes} == {None}


def test_users_are_searched_in_steps_and_may_share_prompts() -> None:
    search = UserSearch(low=8, high=70, resolution=16, bounds=(("p99_tpot_ms", 50.0),))
    probes = measurements(replace(CLOSED, num_prompts=99, user_search=search), served)
    # 8, 24, 40 and 56; 72 is above the highest. 24 keeps 37 >= 24, 40 does not.
    assert [probe.load_point.users for probe in probes] == [8, 56, 24, 40]
    assert {probe.load_point.num_prompts for probe in probes} == {99}
    assert [probe.metrics.get("max_users") for probe in probes] == [None, None, 24, None]


def test_latency_that_is_not_told_of_users_names_their_key() -> None:
    search = replace(USERS, bounds=(("p99_ttft_ms", 5.0),))
    with pytest.raises(MeasurementError, match=r"p99_ttft_ms is not told at 1 user; .* workload\.max_users"):
        measurements(replace(CLOSED, user_search=search), served)


def test_bound_on_steady_part_is_kept_by_what_was_seen_of_it() -> None:
    def steadily(point: LoadPoint) -> Measurement:
        whole = served(point)
        seen = {"steady_p99_ttft_ms": 10.0 * (point.users or 0)}
        return replace(whole, metrics={"p99_ttft_ms": 9000.0}, telemetry=seen)

    search = replace(USERS, high=16, bounds=(("steady_p99_ttft_ms", 55.0),))
    found = measurements(replace(CLOSED, user_search=search), steadily)
    assert [m.load_point.users for m in found if "max_users" in m.metrics] == [5]
    with pytest.raises(MeasurementError, match=r"have this one, and enough of them for a steady part"):
        measurements(replace(CLOSED, user_search=search), served)


def test_trial_finds_users_on_one_simulated_server(simulated_spec: TrialSpec, placement: Placement) -> None:
    # One user alone has a token in 24 ms, 64 users in 67.
    search = UserSearch(low=1, high=64, resolution=1, bounds=(("mean_tpot_ms", 40.0),), prompts_per_user=2)
    point = replace(simulated_spec.load_points[0], user_search=search, max_concurrency=None)
    result = run(replace(simulated_spec, load_points=(point,)), placement, cancelled=lambda: False)
    assert result.state is TrialState.COMPLETE
    kept = {m.load_point.users: m.metrics["mean_tpot_ms"] <= 40.0 for m in result.measurements}
    (found,) = (m.metrics["max_users"] for m in result.measurements if "max_users" in m.metrics)
    # Every probe up to the answer keeps the bound, and none above it does.
    assert 1 < found < 64
    assert {users: users <= found for users in kept} == kept


def test_latency_that_is_not_told_is_no_answer() -> None:
    other = RateSearch(low=1.0, high=2.0, resolution=1.0, bounds=(("p99_tpot_ms", 5.0),))
    point = LoadPoint(dataset="random", num_prompts=8, input_len=32, output_len=1, rate_search=other)
    with pytest.raises(MeasurementError, match="p99_tpot_ms is not told at 1 QPS"):
        measurements(point, Server(keeps_up_to=9.0).measure)


def test_trial_keeps_row_per_probe_on_one_server(simulated_spec: TrialSpec, placement: Placement) -> None:
    search = RateSearch(low=1.0, high=4.0, resolution=1.0, bounds=(("p99_ttft_ms", 1e9),))
    point = replace(simulated_spec.load_points[0], rate_search=search)
    result = run(replace(simulated_spec, load_points=(point,)), placement, cancelled=lambda: False)
    assert result.state is TrialState.COMPLETE
    assert [m.load_point.request_rate_per_s for m in result.measurements] == [1.0, 4.0]
    assert result.measurements[-1].metrics["max_rate_per_s"] == 4.0

"""The highest rate that keeps its bounds: which rates are tried, and what is kept of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeper.errors import MeasurementError
from sweeper.records import LoadPoint, Measurement, Placement, RateSearch, TrialSpec, TrialState
from sweeper.trial.trial import run
from sweeper.workload.rate_search import highest_step, measurements, rate_of, usual_rates

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
    assert [rate_of(tenths, step) for step in range(5)] == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_usual_rates_are_those_of_search_that_ends_in_middle() -> None:
    server = Server(keeps_up_to=6.0)
    measurements(POINT, server.measure)
    assert usual_rates(SEARCH) == tuple(server.rates)
    assert usual_rates(replace(SEARCH, high=2.0)) == (2.0,)


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

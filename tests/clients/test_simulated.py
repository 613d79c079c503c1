from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from sweeper.clients.simulated import SimulatedClient
from sweeper.engines.simulated import SimulatedEngine, SimulatedServer
from sweeper.errors import EngineError, MeasurementError
from sweeper.metrics import summarize
from sweeper.records import (
    ClientSpec,
    FailureClass,
    LoadPoint,
    Measurement,
    Placement,
    Provenance,
    Scalar,
    TrialSpec,
)
from sweeper.simulation.front_end import SERVED
from sweeper.workload.requests import make_workload

RANDOM = LoadPoint(dataset="random", num_prompts=20, input_len=64, output_len=16)


def never() -> bool:
    return False


def start(spec: TrialSpec, placement: Placement) -> SimulatedServer:
    return SimulatedEngine().start(spec, placement, restart=0, cancelled=never)


def measure(
    spec: TrialSpec,
    placement: Placement,
    point: LoadPoint = RANDOM,
    *,
    server: SimulatedServer | None = None,
    cancelled: Callable[[], bool] = never,
) -> Measurement:
    return SimulatedClient(spec).measure(
        server or start(spec, placement), point, restart=2, repeat=1, cancelled=cancelled
    )


def at_once(spec: TrialSpec, placement: Placement) -> Mapping[str, float | None]:
    """Return the metrics of the usual requests that nothing lies before but the scheduler."""
    return summarize(start(spec, placement).serve(make_workload(RANDOM, seed=RANDOM.client_seed)).records)


class SomeoneElsesServer:
    """A server of another engine, alive and well."""

    base_url = "http://127.0.0.1:1"
    api_key = ""
    provenance = Provenance.MEASURED
    start_s = 0.0
    command: tuple[str, ...] = ()
    effective: Mapping[str, Scalar] = {}
    versions: Mapping[str, str] = {}
    log_path: str | None = None

    def sanity(self) -> str:
        return ""

    def check_alive(self) -> None:
        pass

    def prove_ours(self) -> None:
        pass

    def pids(self) -> None:
        pass

    def counters(self) -> Mapping[str, float]:
        return {}

    def stop(self) -> float:
        return 0.0


def test_measurement_has_benchmarks_numbers(simulated_spec: TrialSpec, placement: Placement) -> None:
    before = time.time()
    seen = measure(simulated_spec, placement)
    numbers = seen.metrics
    assert (numbers["completed"], numbers["failed"]) == (20, 0)
    assert (numbers["total_input_tokens"], numbers["total_output_tokens"]) == (20 * 64, 20 * 16)
    assert numbers["duration_s"] == seen.measured_s > 0
    assert numbers["output_throughput_tok_per_s"] == pytest.approx(320 / seen.measured_s)
    assert (seen.restart, seen.repeat, seen.load_point, seen.raw_path) == (2, 1, RANDOM, None)
    assert before <= seen.started_at <= seen.ended_at <= time.time()


def test_measuring_takes_less_time_than_it_models(simulated_spec: TrialSpec, placement: Placement) -> None:
    seen = measure(simulated_spec, placement, replace(RANDOM, request_rate_per_s=0.1))
    # 19 gaps of 10 s in the mean; the clock on the wall is another one.
    assert seen.measured_s > 30
    assert seen.ended_at - seen.started_at < seen.measured_s


def test_telemetry_tells_cache_and_preemptions(simulated_spec: TrialSpec, placement: Placement) -> None:
    plain = measure(simulated_spec, placement).telemetry
    assert plain["prefix_cache_hit_rate"] is None
    assert plain["preemptions"] == 0
    usage = plain["kv_cache_usage"]
    assert usage is not None
    assert 0 < usage < 0.1


def test_second_run_on_server_finds_its_prompts_cached(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    caching = replace(simulated_spec, assignment={**simulated_spec.assignment, "enable_prefix_caching": True})
    server = start(caching, placement)
    second_run = replace(RANDOM, keeps_prefix_cache=True)
    points = (RANDOM, second_run, RANDOM)
    rates = [
        measure(caching, placement, point, server=server).telemetry["prefix_cache_hit_rate"]
        for point in points
    ]
    # Prompts of 64 tokens: three of four blocks of 16, since the last token is always computed. A run that
    # does not ask for the cache begins without one.
    assert rates == [0.0, 0.75, 0.0]


def test_warm_up_takes_time_and_leaves_other_prompts_in_cache(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    caching = replace(simulated_spec, assignment={**simulated_spec.assignment, "enable_prefix_caching": True})
    server = start(caching, placement)
    spent_s = SimulatedClient(caching).warm_up(server, RANDOM, prompts=5, cancelled=never)
    assert spent_s > 0
    assert server.counters()["prefix_cache_queries"] == 5 * 64
    assert measure(caching, placement, server=server).telemetry["prefix_cache_hit_rate"] == 0.0


def test_seed_of_load_point_decides(simulated_spec: TrialSpec, placement: Placement) -> None:
    point = replace(RANDOM, range_ratio=0.5, request_rate_per_s=4.0)
    one, same = (measure(simulated_spec, placement, point).metrics for _ in range(2))
    other = measure(simulated_spec, placement, replace(point, client_seed=1)).metrics
    assert one == same
    assert one != other


def test_concurrency_limits_what_is_under_way(simulated_spec: TrialSpec, placement: Placement) -> None:
    # Read a step late, an answer would keep the next request waiting for that step.
    at_once = {**simulated_spec.assignment, "disable_async_output_proc": True}
    simulated_spec = replace(simulated_spec, assignment=at_once)
    free = measure(simulated_spec, placement)
    one_by_one = measure(simulated_spec, placement, replace(RANDOM, max_concurrency=1))
    assert one_by_one.measured_s > 5 * free.measured_s
    # Nobody is in anybody's way: every request is as fast as the first.
    assert one_by_one.metrics["std_e2el_ms"] == pytest.approx(0.0, abs=1e-6)


def test_requests_that_are_too_long_make_measurement_worthless(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    short = replace(simulated_spec, assignment={**simulated_spec.assignment, "max_model_len": 70})
    with pytest.raises(MeasurementError, match="0 of 20 requests completed; expected all") as caught:
        measure(short, placement)
    assert caught.value.failure is FailureClass.CLIENT


def test_cancelling_ends_measurement(simulated_spec: TrialSpec, placement: Placement) -> None:
    with pytest.raises(EngineError) as caught:
        measure(simulated_spec, placement, cancelled=lambda: True)
    assert caught.value.failure is FailureClass.INTERRUPTED


def test_only_simulated_servers_are_loaded(simulated_spec: TrialSpec) -> None:
    client = SimulatedClient(simulated_spec)
    with pytest.raises(EngineError, match="got a server of type SomeoneElsesServer"):
        client.measure(SomeoneElsesServer(), RANDOM, restart=0, repeat=0, cancelled=never)


def test_closing_twice_is_safe_and_closes_nothing_of_server(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    server = start(simulated_spec, placement)
    client = SimulatedClient(simulated_spec)
    client.close()
    client.close()
    assert client.measure(server, RANDOM, restart=0, repeat=0, cancelled=never).metrics["completed"] == 20


def test_online_requests_pass_front_end_that_offline_ones_have_not(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    one = replace(RANDOM, num_prompts=1)
    online = measure(simulated_spec, placement, one).metrics["duration_s"]
    offline = start(simulated_spec, placement).serve(make_workload(one, seed=one.client_seed)).records
    # In, 64 tokens of the prompt, and back.
    way_s = SERVED.entry_s + 64 * SERVED.token_s + SERVED.return_s
    assert online == pytest.approx((summarize(offline)["duration_s"] or 0.0) + way_s)


def test_batch_without_server_has_latency_of_everything_at_once(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    spec = replace(simulated_spec, client=ClientSpec(kind="offline"))
    measured = measure(spec, placement, replace(RANDOM, dataset="latency"))
    # The same prompts all at once at the scheduler: a round lasts as long as that run.
    round_ms = (at_once(simulated_spec, placement)["duration_s"] or 0.0) * 1e3
    assert measured.metrics["mean_batch_latency_ms"] == pytest.approx(round_ms, rel=0.01)
    # Five rounds are measured, and nothing is known of single requests.
    assert measured.metrics["duration_s"] == pytest.approx(5 * round_ms / 1e3, rel=0.01)
    assert "mean_ttft_ms" not in measured.metrics
    assert measured.metrics["total_input_tokens"] == 20 * 64


def test_batch_again_is_no_faster_for_having_been_seen(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    spec = replace(
        simulated_spec,
        client=ClientSpec(kind="offline"),
        engine=replace(simulated_spec.engine, release="0.11.0"),  # keeps prefixes unless told otherwise
    )
    measured = measure(spec, placement, replace(RANDOM, dataset="latency", input_len=4096))
    assert measured.metrics["std_batch_latency_ms"] == pytest.approx(0.0, abs=1e-6)


def test_throughput_without_server_is_that_of_everything_at_once(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    spec = replace(simulated_spec, client=ClientSpec(kind="offline"))
    measured = measure(spec, placement, replace(RANDOM, dataset="throughput", request_rate_per_s=1.0))
    whole = at_once(simulated_spec, placement)
    for name in ("duration_s", "request_throughput_per_s", "total_throughput_tok_per_s"):
        assert measured.metrics[name] == pytest.approx(whole[name])
    assert "mean_ttft_ms" not in measured.metrics


def test_locust_sends_at_equal_distances(simulated_spec: TrialSpec, placement: Placement) -> None:
    spec = replace(simulated_spec, client=ClientSpec(kind="locust"))
    steady = measure(spec, placement, replace(RANDOM, request_rate_per_s=2.0))
    poisson = measure(simulated_spec, placement, replace(RANDOM, request_rate_per_s=2.0))
    # Nobody meets anybody at two a second, so all requests take the same.
    assert steady.metrics["std_e2el_ms"] == pytest.approx(0.0, abs=0.01)
    # The last of 20 is sent after 19 / 2 = 9.5 s.
    assert (steady.metrics["duration_s"] or 0) == pytest.approx(
        9.5 + (steady.metrics["mean_e2el_ms"] or 0) / 1e3, rel=1e-3
    )
    assert poisson.metrics["duration_s"] != steady.metrics["duration_s"]


def test_goodput_counts_requests_within_their_bounds_as_vllm_does(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    free = measure(simulated_spec, placement).metrics
    assert free["request_goodput_per_s"] is None
    loose = replace(RANDOM, goodput_ms=(("ttft_ms", 1e9), ("tpot_ms", 1e9)))
    every = measure(simulated_spec, placement, loose).metrics
    assert every["request_goodput_per_s"] == free["request_throughput_per_s"]
    none = measure(simulated_spec, placement, replace(RANDOM, goodput_ms=(("ttft_ms", 1e-9),))).metrics
    assert none["request_goodput_per_s"] == 0.0

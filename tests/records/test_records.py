"""Identity by content, and the arithmetic of a model's shape."""

from __future__ import annotations

from dataclasses import asdict, replace

from sweeper.records import (
    ClientSpec,
    FailureClass,
    LoadPoint,
    Model,
    Objective,
    Ramp,
    TrialSpec,
    UserSearch,
    content_key,
)


def test_key_ignores_order_of_knobs_folders_series_and_attempts(simulated_spec: TrialSpec) -> None:
    turned = dict(reversed(list(simulated_spec.assignment.items())))
    same = replace(simulated_spec, assignment=turned, folder="elsewhere", series=("other",), attempt=2)
    assert same.key == simulated_spec.key


def test_key_changes_with_everything_that_changes_number(simulated_spec: TrialSpec) -> None:
    engine = replace(simulated_spec.engine, release="0.6.3")
    more = replace(simulated_spec.load_points[0], num_prompts=21)
    others = [
        replace(simulated_spec, assignment={**simulated_spec.assignment, "max_num_seqs": 65}),
        replace(simulated_spec, engine=engine),
        replace(simulated_spec, load_points=(more,)),
        replace(simulated_spec, repeats=2),
        replace(simulated_spec, partitioning="CPX/NPS4"),
        replace(simulated_spec, model=replace(simulated_spec.model, dtype="fp8")),
    ]
    assert len({spec.key for spec in [simulated_spec, *others]}) == 7


def test_time_limit_is_no_part_of_key(simulated_spec: TrialSpec) -> None:
    patient = replace(simulated_spec, engine=replace(simulated_spec.engine, start_timeout_s=1.0))
    assert patient.key == simulated_spec.key


def test_local_model_is_known_by_its_hash_and_not_by_its_folder(llama_70b: Model) -> None:
    here = replace(llama_70b, path="here", revision="abc")
    assert here.identity == replace(here, path="there").identity
    assert llama_70b.identity != replace(llama_70b, path="another/model").identity


def test_llama_70b_has_its_70_billion_parameters(llama_70b: Model) -> None:
    # Meta gives 70.6 billion; by hand: 80 layers x 855 654 400 (attention 150 994 944, MLP 704 643 072,
    # norms 16 384) + 2 x 128256 x 8192 + 8192
    assert llama_70b.shape.parameters == 80 * (150_994_944 + 704_643_072 + 16_384) + 2_101_346_304 + 8_192


def test_load_point_names_itself_by_what_tells_it_apart() -> None:
    point = LoadPoint(dataset="sharegpt", num_prompts=1000, request_rate_per_s=16.0)
    assert point.label == "16 QPS"
    assert replace(point, max_concurrency=8).label == "16 QPS, 8 at a time"
    assert replace(point, request_rate_per_s=None).label == "all at once"
    assert replace(point, request_rate_per_s=None, max_concurrency=8).label == "8 users"
    assert replace(point, request_rate_per_s=None, max_concurrency=1).label == "1 user"
    trace = LoadPoint(dataset="timed_trace", num_prompts=9, max_concurrency=8)
    assert trace.label == "at its own times, 8 at a time"


def test_users_are_there_only_where_nothing_else_says_when_requests_are_sent() -> None:
    closed = LoadPoint(dataset="random", num_prompts=8, input_len=4, output_len=4, max_concurrency=8)
    assert closed.users == 8
    ramp = Ramp(strategy="linear", start_per_s=1, end_per_s=9)
    for open_loop in (
        replace(closed, max_concurrency=None),
        replace(closed, request_rate_per_s=16.0),
        replace(closed, ramp=ramp),
        replace(closed, dataset="timed_trace"),
        replace(closed, dataset="latency"),
    ):
        assert open_loop.users is None


def test_load_points_without_search_for_users_keep_their_key() -> None:
    point = LoadPoint(dataset="random", num_prompts=8, input_len=4, output_len=4, max_concurrency=8)
    assert "user_search" not in point.identity
    search = UserSearch(low=1, high=8, resolution=1, bounds=(("p99_ttft_ms", 5.0),), prompts_per_user=3)
    searched = replace(point, max_concurrency=None, user_search=search)
    assert searched.identity["user_search"] == asdict(search)
    assert searched.label == "most users with p99_ttft_ms <= 5"


def test_objective_names_its_load_point() -> None:
    everywhere = Objective(metric="mean_ttft_ms", direction="minimize")
    assert everywhere.name == "mean_ttft_ms"
    assert replace(everywhere, request_rate_per_s=16.0).name == "mean_ttft_ms at 16 QPS"
    assert replace(everywhere, max_concurrency=64).name == "mean_ttft_ms at 64 users"
    both = replace(everywhere, request_rate_per_s=16.0, max_concurrency=64)
    assert both.name == "mean_ttft_ms at 16 QPS, 64 at a time"


def test_only_failures_that_may_pass_are_transient() -> None:
    transient = {failure for failure in FailureClass if failure.is_transient}
    assert transient == {FailureClass.PORT, FailureClass.INFRASTRUCTURE, FailureClass.INTERRUPTED}


def test_content_key_is_short_and_stable() -> None:
    # sha256 of {"a":1,"b":[2]} begins so; written down once, because stored studies depend on it
    assert content_key({"b": [2], "a": 1}) == content_key({"a": 1, "b": [2]})
    assert len(content_key({})) == 16
    assert content_key({}) == "44136fa355b3678a"


def test_usual_client_is_no_part_of_key_and_another_one_is(simulated_spec: TrialSpec) -> None:
    # Keys from before there was a choice of clients still hold; where a script lies does not matter.
    usual = replace(simulated_spec, client=ClientSpec(script="/elsewhere/benchmarks"))
    assert usual.key == simulated_spec.key
    assert replace(simulated_spec, client=ClientSpec(kind="locust")).key != simulated_spec.key


def test_offline_load_point_is_named_by_its_batch_and_lengths() -> None:
    batch = LoadPoint(dataset="latency", num_prompts=4, input_len=128, output_len=1)
    assert batch.label == "batch of 4, 128 in, 1 out"
    everything = replace(batch, dataset="throughput", num_prompts=3000)
    assert everything.label == "requests: 3000, 128 in, 1 out"

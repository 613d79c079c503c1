from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from sweeper.engines.simulated import SimulatedEngine, SimulatedServer
from sweeper.errors import ConfigError, EngineError
from sweeper.metrics import summarize
from sweeper.records import (
    FailureClass,
    LoadPoint,
    ModelShape,
    Placement,
    Provenance,
    Scalar,
    TrialSpec,
)
from sweeper.simulation.settings import ignored_knobs, resolve
from sweeper.workload.requests import make_workload

GPUS = Placement(node="here", devices=tuple(range(8)), parents=tuple(range(8)), partition_mode="SPX")
SHAREGPT = make_workload(LoadPoint(dataset="sharegpt", num_prompts=100), seed=0)
LLAMA_8B = ModelShape(
    layers=32,
    hidden=4096,
    intermediate=14336,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocab=128256,
    max_positions=131072,
)


def never() -> bool:
    return False


def of_release(spec: TrialSpec, release: str) -> TrialSpec:
    return replace(spec, engine=replace(spec.engine, release=release))


def asking(spec: TrialSpec, **knobs: Scalar) -> TrialSpec:
    return replace(spec, assignment={"tensor_parallel_size": 4, **knobs})


def start(spec: TrialSpec, *, placement: Placement = GPUS, restart: int = 0) -> SimulatedServer:
    return SimulatedEngine().start(spec, placement, restart=restart, cancelled=never)


def refusal(spec: TrialSpec, *, placement: Placement = GPUS) -> EngineError:
    with pytest.raises(EngineError) as caught:
        start(spec, placement=placement)
    return caught.value


def duration_s(server: SimulatedServer) -> float:
    return float(server.serve(SHAREGPT).records.last_token_s.max())


# --- what it is ---


def test_everything_about_it_says_that_it_is_model(simulated_spec: TrialSpec) -> None:
    server = start(simulated_spec)
    assert server.provenance is Provenance.SIMULATED
    assert server.versions["vllm"] == "0.6.2 (modelled)"
    assert (server.base_url, server.api_key, server.command, server.log_path) == ("", "", (), None)


def test_unset_knobs_get_defaults_of_release(simulated_spec: TrialSpec) -> None:
    old = start(asking(simulated_spec)).effective
    # V0: 256 sequences; a context above 32k turns chunked prefill on, 512 tokens a step before 0.6.5.
    assert (old["max_num_seqs"], old["enable_chunked_prefill"], old["max_num_batched_tokens"]) == (
        256,
        True,
        512,
    )
    assert (old["max_seq_len_to_capture"], old["enable_prefix_caching"]) == (8192, False)
    new = start(asking(of_release(simulated_spec, "0.9.2"))).effective
    # V1, the default on ROCm from 0.9.2.
    assert (new["max_num_seqs"], new["max_num_batched_tokens"], new["enable_prefix_caching"]) == (
        1024,
        8192,
        True,
    )
    assert "num_scheduler_steps" not in new
    assert start(asking(of_release(simulated_spec, "0.14.0"))).effective["async_scheduling"] is True


def test_without_chunked_prefill_step_takes_prompt_of_any_length(simulated_spec: TrialSpec) -> None:
    effective = start(asking(simulated_spec, enable_chunked_prefill=False)).effective
    assert effective["max_num_batched_tokens"] == 131072


def test_what_is_asked_goes_before_defaults(simulated_spec: TrialSpec) -> None:
    settings = resolve(asking(simulated_spec, max_num_seqs=17, enable_chunked_prefill=False))
    assert (settings["max_num_seqs"], settings["enable_chunked_prefill"]) == (17, False)
    assert settings["dtype"] == "bfloat16"


def test_knobs_that_model_ignores_are_told(simulated_spec: TrialSpec) -> None:
    spec = asking(simulated_spec, VLLM_RPC_TIMEOUT=30000, swap_space=16, max_num_seqs=64)
    assert ignored_knobs(spec) == ("VLLM_RPC_TIMEOUT", "swap_space")
    server = start(spec)
    assert server.ignored_knobs == ("VLLM_RPC_TIMEOUT", "swap_space")
    assert server.effective["not_modelled"] == "VLLM_RPC_TIMEOUT swap_space"


def test_knob_of_v0_is_ignored_in_v1(simulated_spec: TrialSpec) -> None:
    assert ignored_knobs(asking(of_release(simulated_spec, "0.10.0"), max_seq_len_to_capture=16384)) == (
        "max_seq_len_to_capture",
    )
    assert ignored_knobs(asking(simulated_spec, max_seq_len_to_capture=16384)) == ()


def test_threshold_for_long_prompts_is_modelled_in_v1_alone(simulated_spec: TrialSpec) -> None:
    name = "long_prefill_token_threshold"
    spec = asking(simulated_spec, **{name: 256})
    assert ignored_knobs(spec) == (name,)
    assert name not in start(spec).effective
    newer = of_release(simulated_spec, "0.32.0")
    assert name not in start(asking(newer)).effective
    cut = start(asking(newer, **{name: 64}))
    assert cut.effective[name] == 64
    assert cut.ignored_knobs == ()
    # Prompts of ShareGPT are longer than that: each now takes several steps, and the answers wait for none.
    assert duration_s(cut) != duration_s(start(asking(newer)))


def test_ignored_knobs_change_no_number(simulated_spec: TrialSpec) -> None:
    plain, decorated = asking(simulated_spec), asking(simulated_spec, VLLM_RPC_TIMEOUT=30000)
    assert duration_s(start(plain)) == duration_s(start(decorated))


def test_start_takes_boot_and_reading_of_weights(simulated_spec: TrialSpec) -> None:
    spec = replace(asking(simulated_spec), calibration={"boot_s": 10.0, "load_bytes_per_s": 1e9})
    # 70.55e9 weights x 2 bytes / 4 devices = 35.3 GB at 1 GB/s.
    assert start(spec).start_s == pytest.approx(45.3, abs=0.1)


def test_fingerprint_is_of_model_and_release(simulated_spec: TrialSpec) -> None:
    one = start(asking(simulated_spec)).sanity()
    assert one == start(asking(simulated_spec, max_num_seqs=8)).sanity()
    assert one != start(asking(of_release(simulated_spec, "0.9.2"))).sanity()


# --- what it refuses ---


def test_model_that_does_not_fit_is_out_of_memory_with_arithmetic(simulated_spec: TrialSpec) -> None:
    error = refusal(asking(simulated_spec, tensor_parallel_size=1, enable_chunked_prefill=False))
    assert error.failure is FailureClass.OUT_OF_MEMORY
    # 70.55e9 x 2 bytes = 131.4 GiB; 131072 tokens x 80 x 2 x 8 x 128 x 2 bytes = 40.0 GiB; 192 x 0.9 = 172.8.
    # A step of 131072 tokens: 6 x (8192 + 28672) bytes each = 27.0 GiB, twice on ROCm before 0.6.6, and
    # 0.25 GiB outside of torch.
    for part in (
        "weights 131.4 GiB",
        "working memory 54.2 GiB",
        "one sequence of 131072 tokens 40.0 GiB",
        "172.8 GiB available",
        "Lower max_model_len",
    ):
        assert part in str(error)


def test_partition_has_eighth_of_memory(simulated_spec: TrialSpec) -> None:
    small = replace(simulated_spec, model=replace(simulated_spec.model, shape=LLAMA_8B))
    spec = asking(small, tensor_parallel_size=1, max_model_len=8192)
    assert start(spec).effective["num_gpu_blocks"]
    cpx = replace(GPUS, devices=(0,), parents=(0,), partition_mode="CPX")
    # 16.06e9 bytes of 24 GiB x 0.9 are taken; of the rest, 131072 bytes a token, 8192 tokens are 1 GiB.
    assert start(spec, placement=cpx).effective["num_gpu_blocks"]
    assert refusal(asking(small, tensor_parallel_size=1), placement=cpx).failure is FailureClass.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("release", "knobs", "failure", "message"),
    [
        (
            "0.6.2",
            {"enable_chunked_prefill": True, "num_scheduler_steps": 10},
            FailureClass.BAD_ARGUMENT,
            "Set enable_chunked_prefill to false",
        ),
        # On by itself for a long context.
        (
            "0.6.2",
            {"num_scheduler_steps": 10},
            FailureClass.BAD_ARGUMENT,
            "Set enable_chunked_prefill to false",
        ),
        (
            "0.6.2",
            {"enable_chunked_prefill": False, "max_num_batched_tokens": 4096},
            FailureClass.BAD_ARGUMENT,
            "max_model_len = 131072",
        ),
        ("0.6.2", {"max_num_seqs": 1024}, FailureClass.BAD_ARGUMENT, "max_num_seqs = 1024"),
        ("0.6.2", {"pipeline_parallel_size": 2}, FailureClass.NOT_MODELLED, "pipelines are not modelled"),
        (
            "0.32.0",
            {"prefill_context_parallel_size": 2, "enable_prefix_caching": False},
            FailureClass.NOT_MODELLED,
            "prompts that several devices share are not modelled",
        ),
        ("0.6.2", {"dtype": "float32"}, FailureClass.NOT_MODELLED, "dtype is float32"),
        ("0.6.2", {"tensor_parallel_size": 3}, FailureClass.BAD_ARGUMENT, "divisor of the model's 64"),
        ("0.6.2", {"data_parallel_size": 4}, FailureClass.BAD_ARGUMENT, "has 8 devices; expected .* = 16"),
        ("0.9.2", {"enable_chunked_prefill": False}, FailureClass.BAD_ARGUMENT, "V1 forces chunked prefill"),
    ],
)
def test_what_release_or_model_cannot_do_is_refused(
    simulated_spec: TrialSpec,
    release: str,
    knobs: Mapping[str, Scalar],
    failure: FailureClass,
    message: str,
) -> None:
    error = refusal(asking(of_release(simulated_spec, release), **knobs))
    assert error.failure is failure
    assert re.search(message, str(error))


def test_from_0_6_3_chunked_prefill_and_multi_step_go_together(simulated_spec: TrialSpec) -> None:
    spec = asking(of_release(simulated_spec, "0.6.3"), num_scheduler_steps=8)
    assert start(spec).effective["num_scheduler_steps"] == 8


def test_unknown_calibration_parameter_is_refused(simulated_spec: TrialSpec) -> None:
    with pytest.raises(ConfigError, match=r"got 'host_step_ms'.*'host_step_s'\?"):
        start(replace(simulated_spec, calibration={"host_step_ms": 1.0}))


def test_cancelled_start_is_interrupted(simulated_spec: TrialSpec) -> None:
    with pytest.raises(EngineError) as caught:
        SimulatedEngine().start(simulated_spec, GPUS, restart=0, cancelled=lambda: True)
    assert caught.value.failure is FailureClass.INTERRUPTED


def test_stopped_server_is_dead_and_may_be_stopped_again(simulated_spec: TrialSpec) -> None:
    server = start(simulated_spec)
    server.check_alive()
    assert (server.stop(), server.stop()) == (0.0, 0.0)
    for use in (server.check_alive, server.sanity, lambda: server.serve(SHAREGPT)):
        with pytest.raises(EngineError, match="after its stop"):
            use()


# --- how it serves ---


def test_rerun_hits_prefix_cache_and_restart_does_not(simulated_spec: TrialSpec) -> None:
    spec = asking(simulated_spec, enable_chunked_prefill=False, enable_prefix_caching=True)
    server = start(spec)
    first, second = server.serve(SHAREGPT), server.serve(SHAREGPT)
    assert first.prefix_hits < 0.05 * first.prefix_queries
    # All but the last, incomplete block of each prompt.
    assert second.prefix_hits > 0.9 * second.prefix_queries
    # As the log of a real server counts it, from its start: about a half.
    counted = server.counters()
    assert counted["prefix_cache_queries"] == 2 * SHAREGPT.input_tokens.sum()
    assert 0.45 < counted["prefix_cache_hits"] / counted["prefix_cache_queries"] < 0.55
    assert start(spec, restart=1).serve(SHAREGPT).prefix_hits == first.prefix_hits


def test_two_replicas_serve_as_two_servers_of_half_load(simulated_spec: TrialSpec) -> None:
    both = start(asking(simulated_spec, data_parallel_size=2)).serve(SHAREGPT)
    alone = start(asking(simulated_spec)).serve(SHAREGPT.part(index=1, parts=2))
    assert np.array_equal(both.records.last_token_s[1::2], alone.records.last_token_s)
    assert np.array_equal(both.records.output_tokens, SHAREGPT.output_tokens)


def test_replicas_divide_clients_places(simulated_spec: TrialSpec) -> None:
    served = start(asking(simulated_spec, data_parallel_size=2)).serve(SHAREGPT, max_concurrency=3)
    sent = np.sort(served.records.arrival_s)
    # Two places for one, one for the other, and everybody else must wait.
    assert (sent == 0).sum() == 3


def test_small_cache_preempts_and_tells(simulated_spec: TrialSpec) -> None:
    # 70B on 4: weights 32.9 GiB; 0.19 x 192 = 36.5 GiB leave little.
    spec = asking(simulated_spec, gpu_memory_utilization=0.19, max_model_len=2048)
    server = start(spec)
    served = server.serve(make_workload(LoadPoint(dataset="sharegpt", num_prompts=400), seed=0))
    assert served.preemptions == server.counters()["preemptions"] > 0
    assert 0.9 < served.kv_cache_usage <= 1
    assert server.counters()["kv_cache_usage_peak"] == served.kv_cache_usage


def test_without_noise_every_restart_is_same(simulated_spec: TrialSpec) -> None:
    assert duration_s(start(simulated_spec)) == duration_s(start(simulated_spec, restart=1))


def test_noise_differs_between_restarts_and_runs_and_repeats_with_them(simulated_spec: TrialSpec) -> None:
    by_restart = replace(simulated_spec, calibration={"restart_noise": 0.05})
    one = start(by_restart)
    assert duration_s(one) == duration_s(one) == duration_s(start(by_restart))
    assert duration_s(one) != duration_s(start(by_restart, restart=1))
    by_run = start(replace(simulated_spec, calibration={"run_noise": 0.05}))
    assert duration_s(by_run) != duration_s(by_run)


@pytest.mark.parametrize(
    ("slower", "faster"),
    [
        ({"enforce_eager": True}, {}),
        ({"tensor_parallel_size": 2}, {}),
        ({"max_seq_len_to_capture": 131072}, {}),
        ({"kv_cache_dtype": "fp8"}, {}),
        ({}, {"NCCL_MIN_NCHANNELS": 112}),
        ({}, {"host_numa_balancing": 0}),
        ({"enable_prefix_caching": True}, {}),
        ({"max_num_seqs": 16}, {}),
    ],
)
def test_modelled_knob_moves_numbers_way_it_should(
    simulated_spec: TrialSpec, slower: Mapping[str, Scalar], faster: Mapping[str, Scalar]
) -> None:
    base = {"enable_chunked_prefill": False}
    slow = duration_s(start(asking(simulated_spec, **{**base, **slower})))
    fast = duration_s(start(asking(simulated_spec, **{**base, **faster})))
    assert slow > fast


def test_fp8_weights_help_where_their_kernels_reach_rate_of_wide_ones(simulated_spec: TrialSpec) -> None:
    wide = duration_s(start(asking(simulated_spec)))
    narrow = asking(simulated_spec, quantization="fp8")
    good, poor = (
        duration_s(start(replace(narrow, calibration={"fp8_gemm_frac": part}))) for part in (1.0, 0.1)
    )
    assert good < wide < poor


def test_async_scheduling_hides_host_in_v1(simulated_spec: TrialSpec) -> None:
    waits = asking(of_release(simulated_spec, "0.12.0"), async_scheduling=False)
    hides = asking(of_release(simulated_spec, "0.12.0"), async_scheduling=True)
    assert duration_s(start(waits)) > duration_s(start(hides))


# Case 2 of "Serving LLMs on AMD MI300X": requests per second, printed on its bars, at 16, 32 and 1000 QPS;
# the last series' are read off the bars.
CASE_2: tuple[tuple[dict[str, Scalar], tuple[float, float, float]], ...] = (
    ({}, (6.50, 7.46, 7.49)),
    ({"enable_chunked_prefill": False}, (8.14, 8.65, 8.75)),
    ({"enable_chunked_prefill": False, "num_scheduler_steps": 5}, (9.93, 10.57, 10.80)),
    ({"enable_chunked_prefill": False, "num_scheduler_steps": 10}, (10.37, 11.20, 11.24)),
    ({"enable_chunked_prefill": False, "num_scheduler_steps": 15}, (10.58, 11.37, 11.57)),
)


@pytest.mark.parametrize(("group", "rate"), list(enumerate((16.0, 32.0, 1000.0))))
def test_case_2_has_published_order_and_rough_size(
    simulated_spec: TrialSpec, group: int, rate: float
) -> None:
    point = LoadPoint(dataset="sharegpt", num_prompts=1000, request_rate_per_s=rate)
    workload = make_workload(point, seed=0)
    found = []
    for knobs, published in CASE_2:
        numbers = summarize(start(asking(simulated_spec, **knobs)).serve(workload).records)
        assert numbers["request_throughput_per_s"] == pytest.approx(published[group], rel=0.15)
        found.append(numbers["request_throughput_per_s"])
    assert found == sorted(found)  # type: ignore[type-var]

"""Every experiment of the source documents: what it asks for is what the documents say, and it runs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Set
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sweeper import config, published
from sweeper.config import Settings
from sweeper.errors import ConfigError
from sweeper.plan.fitting import fitted
from sweeper.plan.planner import Job, Planner, Refusal
from sweeper.prepare.model import provide_model
from sweeper.prepare.platform import compose_for_platform
from sweeper.records import FailureClass, LoadPoint, Platform, Scalar, TrialState
from sweeper.schedule.allocator import Allocator
from sweeper.space.space import Series, Space
from sweeper.topology import Node, modelled_mi300x
from sweeper.trial import trial

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = config.groups()["experiment"]
NO_MODEL_OF_TGI = "there is no model of TGI; its published figures stand in the chart"

# One trial per server that has to be started: series of equal assignment share one.
TRIALS = {
    "amd_v1_guide": 23,
    "article_cases": 20,  # 35 bars of the article's eight cases
    "case1_chunked_prefill": 4,
    "case2_async_scheduling": 3,
    "case2_sched_steps": 5,
    "case3_prefix_caching": 5,  # 6 series, of which the fresh and the second run share a server
    "case4_capture_len": 6,
    "case4_cudagraph_sizes": 4,
    "case5_amd_env": 3,
    "case6_kv_cache_dtype": 3,
    "case7_tensor_parallel": 4,
    "case8_max_num_seqs": 4,
    "cpx_density": 7,
    "gpu_check": 6,
    "intro_405b": 4,
    "intro_70b": 3,
    "mad_report": 4,
    "quick_start": 3,
    "serving_locust": 2,
    "serving_random": 2,
    "serving_sharegpt": 2,
    "tgi_vs_vllm_long": 2,
    "tgi_vs_vllm_rps": 2,
    "tgi_vs_vllm_short": 2,
    "tgi_vs_vllm_single": 2,
}

# Series that differ from another in knobs only that no model here knows: measured, and never simulated.
NOT_TOLD_APART: Mapping[str, Set[str]] = {
    "amd_v1_guide": {
        *("aiter", "aiter_no_linear", "aiter_no_rmsnorm"),
        *("attention_triton", "attention_rocm", "attention_aiter_fa", "attention_aiter_unified"),
        *("quick_reduce_fp", "quick_reduce_int8", "quick_reduce_int6", "quick_reduce_int4"),
        *("graphs_none", "graphs_piecewise", "graphs_full", "graphs_full_decode"),
        *("kernel_arguments", "hipblaslt"),
    },
    "case2_async_scheduling": {"asynchronous_stream10"},
    "case4_cudagraph_sizes": {"graphs_256", "graphs_512"},
}

ARTICLE: Mapping[str, Scalar] = {
    "tensor_parallel_size": 4,
    "max_num_seqs": 256,
    "VLLM_USE_TRITON_FLASH_ATTN": 0,
    "VLLM_RPC_TIMEOUT": 30000,
}
CHUNK_512 = {"enable_chunked_prefill": True, "max_num_batched_tokens": 512}
NO_CHUNK = {"enable_chunked_prefill": False}
STEPS_10 = {**NO_CHUNK, "num_scheduler_steps": 10}
HARDWARE = {"host_numa_balancing": False, "NCCL_MIN_NCHANNELS": 112}
TUNED = {**STEPS_10, "max_seq_len_to_capture": 16384, **HARDWARE}

# Series to its knobs beyond ARTICLE, read off the legends of the article's figures and its printed commands.
GOLDEN: Mapping[str, Mapping[str, Mapping[str, Scalar]]] = {
    "case1_chunked_prefill": {
        "default": CHUNK_512,
        "chunk_2048": {"enable_chunked_prefill": True, "max_num_batched_tokens": 2048},
        "chunk_4096": {"enable_chunked_prefill": True, "max_num_batched_tokens": 4096},
        "no_chunk": NO_CHUNK,
    },
    "case2_sched_steps": {
        "default": {**CHUNK_512, "num_scheduler_steps": 1},
        "no_chunk_steps1": {**NO_CHUNK, "num_scheduler_steps": 1},
        "no_chunk_steps5": {**NO_CHUNK, "num_scheduler_steps": 5},
        "no_chunk_steps10": STEPS_10,
        "no_chunk_steps15": {**NO_CHUNK, "num_scheduler_steps": 15},
    },
    "case3_prefix_caching": {
        "default": {**CHUNK_512, "enable_prefix_caching": False},
        "no_chunk_no_cache": {**NO_CHUNK, "enable_prefix_caching": False},
        "no_chunk_cache_fresh": {**NO_CHUNK, "enable_prefix_caching": True},
        "no_chunk_cache_second": {**NO_CHUNK, "enable_prefix_caching": True},
        "chunk_512_cache_fresh": {**CHUNK_512, "enable_prefix_caching": True},
        "chunk_2048_cache_fresh": {
            "enable_chunked_prefill": True,
            "max_num_batched_tokens": 2048,
            "enable_prefix_caching": True,
        },
    },
    "case4_capture_len": {
        "default": {**CHUNK_512, "num_scheduler_steps": 1, "max_seq_len_to_capture": 8192},
        "capture_4096": {**STEPS_10, "max_seq_len_to_capture": 4096},
        "capture_8192": {**STEPS_10, "max_seq_len_to_capture": 8192},
        "capture_16384": {**STEPS_10, "max_seq_len_to_capture": 16384},
        "capture_65536": {**STEPS_10, "max_seq_len_to_capture": 65536},
        "capture_131072": {**STEPS_10, "max_seq_len_to_capture": 131072},
    },
    "case5_amd_env": {
        "default": CHUNK_512,
        "tuned_no_hw": {**STEPS_10, "max_seq_len_to_capture": 16384},
        "tuned_hw": TUNED,
    },
    "case6_kv_cache_dtype": {
        "default": {**CHUNK_512, "kv_cache_dtype": "auto"},
        "tuned_kv_auto": {**TUNED, "kv_cache_dtype": "auto"},
        "tuned_kv_fp8": {**TUNED, "kv_cache_dtype": "fp8"},
    },
    "case7_tensor_parallel": {
        "default": {**CHUNK_512, "tensor_parallel_size": 4},
        "tuned_tp4": {**TUNED, "tensor_parallel_size": 4},
        "tuned_tp8": {**TUNED, "tensor_parallel_size": 8},
        "tuned_2_tp4": {**TUNED, "tensor_parallel_size": 4, "instances": 2},
    },
    "case8_max_num_seqs": {
        "default": CHUNK_512,
        "tuned_256": {**TUNED, "max_num_seqs": 256},
        "tuned_512": {**TUNED, "max_num_seqs": 512},
        "tuned_1024": {**TUNED, "max_num_seqs": 1024},
    },
    "quick_start": {
        "default": CHUNK_512,
        "command": {
            **NO_CHUNK,
            "num_scheduler_steps": 15,
            "max_seq_len_to_capture": 16384,
            "max_num_seqs": 1024,
        },
        "command_and_host": {
            **NO_CHUNK,
            "num_scheduler_steps": 15,
            "max_seq_len_to_capture": 16384,
            "max_num_seqs": 1024,
            **HARDWARE,
        },
    },
}


@cache  # composing is most of what a test here costs
def composed(name: str, *overrides: str, platform: Platform = Platform.SIMULATED) -> Settings:
    plain, _ = compose_for_platform(
        [f"+experiment={name}", f"platform={platform}", *overrides], config_dir=None
    )
    return config.settings(plain, platform=platform)


def planner_of(found: Settings) -> tuple[Planner, Node]:
    mode, memory_mode = found.insisted
    node = modelled_mi300x(mode or "SPX", memory_mode or "NPS1")
    planner = Planner(
        study=found.name,
        trials_folder="trials",
        space=found.space,
        engine=replace(found.engine, kind="simulated"),
        model=provide_model(found),
        platform=Platform.SIMULATED,
        node=node,
        accelerator="rocm",
        load_points=found.load_points,
        warmup_prompts=found.warmup_prompts,
        client=found.client,
    )
    return fitted(planner), node


def jobs_of(name: str) -> dict[str, Job]:
    """Jobs of an experiment on the simulated platform, by each series they serve."""
    planner, _ = planner_of(composed(name))
    return {series: job for job in planner.grid() for series in job.spec.series}


def rows_of(name: str) -> list[dict[str, str]]:
    path = ROOT / "experiments" / name / "published.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_question_of_source_documents_has_its_experiment() -> None:
    searches = {name for name in EXPERIMENTS if name.startswith("tune")}
    # Ours: tried on a CPU, and the load on a server as it is.
    assert set(EXPERIMENTS) - searches - {"cpu_smoke", "endpoint_load"} == set(TRIALS)


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "cpu_smoke"])
def test_experiment_is_headed_by_question_source_and_command(name: str) -> None:
    head = (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[:9]
    for start in ("# Question:", "# Source:", f"# Command:  python -m sweeper +experiment={name}"):
        assert any(line.startswith(start) for line in head), start
    assert composed(name).experiment == name


@pytest.mark.parametrize("name", TRIALS)
def test_experiment_plans_one_trial_for_each_server(name: str) -> None:
    planner, _ = planner_of(composed(name))
    jobs = planner.grid()
    assert len(jobs) == TRIALS[name]
    for job in jobs:
        if set(job.spec.series) & NOT_TOLD_APART.get(name, set()):
            assert "no effect in the model, so it would repeat series" in str(job.refusal)
            continue
        assert job.refusal == (
            Refusal(FailureClass.NOT_MODELLED, NO_MODEL_OF_TGI) if job.spec.engine.kind == "tgi" else None
        ), job.spec.series


@pytest.mark.parametrize("name", GOLDEN)
def test_knobs_of_each_series_are_articles(name: str) -> None:
    found = composed(name)
    assert found.engine.release == "0.6.2"
    assert found.model.name == "meta-llama/Llama-3.1-70B-Instruct"
    assert [p.request_rate_per_s for p in found.load_points if not p.keeps_prefix_cache] == [16, 32, 1000]
    assignments = {point.series: dict(point.assignment) for point in found.space.grid()}
    assert assignments == {series: {**ARTICLE, **knobs} for series, knobs in GOLDEN[name].items()}


@pytest.mark.parametrize("name", TRIALS)
def test_what_series_names_as_published_was_published(name: str) -> None:
    rows = rows_of(name)
    names = {series.published for series in composed(name).space.series if series.published}
    assert names <= {row["series"] for row in rows}
    # The other way round: nothing lies there that no series shows.
    assert {row["series"] for row in rows} <= names


@pytest.mark.parametrize("name", TRIALS)
def test_published_figures_are_readable_and_of_model_that_is_served(name: str) -> None:
    frame = published.load(name, root=ROOT / "experiments")
    found = composed(name)
    for series in found.space.series:
        theirs = frame[frame["series"] == series.published]
        served = (series.model or found.model).name
        assert all(published.is_same_model(model, served) for model in theirs["model"]), series.name


def test_every_experiment_but_searches_and_smoke_test_has_its_page() -> None:
    for name in TRIALS:
        page = (ROOT / "experiments" / name / "README.md").read_text(encoding="utf-8")
        assert f"+experiment={name}" in page
        assert "What our runs say" in page, name


def test_405b_commands_are_printed_ones() -> None:
    jobs = jobs_of("intro_405b")
    default, guide = jobs["vllm_default"].spec, jobs["vllm_this_guide"].spec
    common = {
        "tensor_parallel_size": 8,
        "max_num_seqs": 1024,
        "VLLM_USE_TRITON_FLASH_ATTN": 0,
        "VLLM_RPC_TIMEOUT": 30000,
    }
    assert dict(default.assignment) == {**common, "max_num_batched_tokens": 1024}
    assert dict(guide.assignment) == {
        **common,
        "max_seq_len_to_capture": 16384,
        "enable_chunked_prefill": False,
        "num_scheduler_steps": 15,
    }
    assert default.model.name == "meta-llama/Llama-3.1-405B-Instruct"
    assert guide.model.name == "meta-llama/Llama-3.1-405B-Instruct-FP8"
    assert guide.model.quantization is not None
    assert guide.model.quantization.method == "fbgemm_fp8"
    tgi = {
        "num_shard": 8,
        "sharded": True,
        "max_concurrent_requests": 1024,
        "ROCM_USE_FLASH_ATTN_V2_TRITON": "false",
        "TRUST_REMOTE_CODE": "true",
    }
    assert dict(jobs["tgi_default"].spec.assignment) == tgi
    assert dict(jobs["tgi_this_guide"].spec.assignment) == {
        **tgi,
        "max_total_tokens": 131072,
        "max_input_tokens": 131000,
    }
    assert {jobs[name].spec.engine.kind for name in ("tgi_default", "tgi_this_guide")} == {"tgi"}


def test_series_of_tgi_has_none_of_vllms_knobs_and_is_planned_where_it_can_be_measured() -> None:
    tgi = Series(name="tgi", label="TGI", knobs={"num_shard": 8}, engine="tgi")
    planner, _ = planner_of(composed("intro_405b"))
    measured = replace(
        planner, platform=Platform.MI300X, space=Space(base={"max_num_seqs": 256}, series=(tgi,))
    )
    (job,) = measured.grid()
    assert dict(job.spec.assignment) == {"num_shard": 8}
    assert (job.spec.engine.kind, job.spec.devices_wanted, job.refusal) == ("tgi", 8, None)
    too_large = replace(measured, space=Space(series=(replace(tgi, knobs={"num_shard": 16}),)))
    assert "needs 16 devices" in str(too_large.grid()[0].refusal)


def test_case_3_runs_each_load_point_twice_on_servers_that_keep_prefixes_and_once_on_others() -> None:
    jobs = jobs_of("case3_prefix_caching")
    twice = jobs["no_chunk_cache_second"].spec
    assert twice.series == ("no_chunk_cache_fresh", "no_chunk_cache_second")
    assert [(p.request_rate_per_s, p.keeps_prefix_cache) for p in twice.load_points] == [
        (16.0, False),
        (16.0, True),
        (32.0, False),
        (32.0, True),
        (1000.0, False),
        (1000.0, True),
    ]
    assert [p.label for p in twice.load_points[:2]] == ["16 QPS", "16 QPS, second run"]
    once = jobs["no_chunk_no_cache"].spec.load_points
    assert [(p.request_rate_per_s, p.keeps_prefix_cache) for p in once] == [
        (16.0, False),
        (32.0, False),
        (1000.0, False),
    ]


@pytest.mark.parametrize(("release", "points"), [("0.6.2", 1), ("0.32.0", 2)])
def test_unsaid_prefix_cache_is_releases_default(release: str, points: int) -> None:
    fresh = LoadPoint(dataset="random", num_prompts=1, input_len=8, output_len=8)
    planner, _ = planner_of(composed("case1_chunked_prefill"))
    asked = replace(
        planner,
        engine=replace(planner.engine, release=release),
        space=Space(base={"tensor_parallel_size": 4}),
        load_points=(fresh, replace(fresh, keeps_prefix_cache=True)),
    )
    # V0 remembers nothing unless told to; V1, which 0.32.0 is, remembers unless told not to.
    assert len(asked.grid()[0].spec.load_points) == points


def test_second_run_can_only_be_shown_where_there_is_one() -> None:
    with pytest.raises(
        ConfigError, match=r"no_chunk_cache_second\.run: is 'second', and workload\.second_run"
    ):
        composed("case3_prefix_caching", "workload.second_run=false")
    with pytest.raises(
        ConfigError, match=r"default\.run: 'third' is not allowed; expected one of fresh, second"
    ):
        composed("case1_chunked_prefill", "space.series.default.run=third")
    with pytest.raises(
        ConfigError, match=r"default\.engine: 'trtllm' is not allowed; expected one of vllm, sglang, tgi"
    ):
        composed("case1_chunked_prefill", "space.series.default.engine=trtllm")


@pytest.mark.parametrize(
    ("name", "batches", "input_lens"),
    [
        ("tgi_vs_vllm_short", [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048], {80}),
        ("tgi_vs_vllm_long", [1, 2, 4, 8, 16, 32, 64], {10000}),
        ("tgi_vs_vllm_single", [1, 1, 1, 1], {16000, 32000, 64000, 128000}),
    ],
)
def test_batches_of_tgi_vs_vllm_are_sent_at_once(name: str, batches: list[int], input_lens: set[int]) -> None:
    found = composed(name)
    assert [p.num_prompts for p in found.load_points] == batches
    assert {p.input_len for p in found.load_points} == input_lens
    assert {(p.output_len, p.request_rate_per_s) for p in found.load_points} == {(150, None)}
    rows = {(int(row["num_prompts"]), int(row["input_len"])) for row in rows_of(name)}
    assert rows == {(p.num_prompts, p.input_len) for p in found.load_points}


def test_rates_of_tgi_vs_vllm_last_300_seconds_each() -> None:
    points = composed("tgi_vs_vllm_rps").load_points
    assert [p.request_rate_per_s for p in points] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert [p.num_prompts / (p.request_rate_per_s or 1) for p in points] == [300.0] * 5


def test_serving_guides_loads_are_its_commands() -> None:
    (sharegpt,) = composed("serving_sharegpt").load_points
    assert (sharegpt.dataset, sharegpt.num_prompts, sharegpt.request_rate_per_s) == ("sharegpt", 200, None)
    (random,) = composed("serving_random").load_points
    lengths = (random.input_len, random.output_len, random.num_prompts, random.request_rate_per_s)
    assert lengths == (1000, 1000, 1000, 250.0)
    locust = composed("serving_locust")
    (steady,) = locust.load_points
    # --qps 1.0 -p 1000 -o 100 -t 2m
    lengths = (steady.input_len, steady.output_len, steady.num_prompts, steady.request_rate_per_s)
    assert lengths == (1000, 100, 120, 1.0)
    assert locust.client.kind == "locust"
    guide = next(p.assignment for p in locust.space.grid() if p.series == "guide")
    flags = ("num_scheduler_steps", "max_num_seqs", "max_model_len", "max_num_batched_tokens", "swap_space")
    assert [guide[flag] for flag in flags] == [10, 1000, 8192, 65536, 16]


def test_mad_report_has_loads_of_its_script() -> None:
    found = composed("mad_report")
    batches = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    latency = [p for p in found.load_points if p.dataset == "latency"]
    assert [(p.input_len, p.output_len) for p in latency if p.num_prompts == 1] == [
        (128, 1),
        (2048, 1),
        (1, 128),
    ]
    assert sorted({p.num_prompts for p in latency}) == batches
    assert len(latency) == 3 * len(batches)
    throughput = [p for p in found.load_points if p.dataset == "throughput"]
    assert [(p.num_prompts, p.input_len, p.output_len) for p in throughput] == [
        (30000, 128, 128),
        (3000, 2048, 128),
        (3000, 128, 2048),
        (1500, 2048, 2048),
    ]
    knobs: dict[str, Any] = {str(p.series): p.assignment for p in found.space.grid()}
    assert knobs["float16_1gpu"]["enforce_eager"] is True
    assert knobs["float16_8gpu"]["distributed_executor_backend"] == "mp"
    assert (knobs["float8_8gpu"]["quantization"], knobs["float8_8gpu"]["kv_cache_dtype"]) == ("fp8", "fp8")
    assert (found.engine.release, found.client.kind) == ("0.4.3", "offline")


def test_one_whole_gpu_stands_beside_its_partitions_in_study_of_its_own() -> None:
    assert composed("cpx_density").insisted == ("CPX", "NPS4")
    whole = composed("cpx_density", "+overlay=spx_one_gpu")
    assert (whole.insisted, whole.name) == (("SPX", "NPS1"), "cpx_density-spx")
    planner, _ = planner_of(whole)
    broken = "breaks the rule of the space: "
    assert {job.spec.series[0]: job.refusal and job.refusal.message for job in planner.grid()} == {
        "tp1": None,
        "tp2": f"{broken}tensor_parallel_size == 1",
        "tp4": f"{broken}tensor_parallel_size == 1",
        "tp8": f"{broken}tensor_parallel_size == 1",
        "servers_8x1": f"{broken}instances == 1",
        "servers_4x2": f"{broken}tensor_parallel_size == 1",
        "servers_2x4": f"{broken}tensor_parallel_size == 1",
    }


@pytest.mark.parametrize(
    "name",
    [
        *("case1_chunked_prefill", "case3_prefix_caching", "case5_amd_env", "case6_kv_cache_dtype"),
        *("case7_tensor_parallel", "case8_max_num_seqs", "quick_start", "case2_async_scheduling"),
        *("case4_cudagraph_sizes", "mad_report", "serving_locust", "serving_random", "serving_sharegpt"),
    ],
)
def test_experiment_becomes_one_that_todays_vllm_runs_on_two_cores(name: str) -> None:
    found = composed(name, platform=Platform.CPU)
    assert found.model.is_dummy
    planner, _ = planner_of(found)
    today = replace(
        planner,
        platform=Platform.CPU,
        accelerator="cpu",
        engine=replace(planner.engine, kind="vllm", release="0.32.0"),
        model=found.model,
    )
    jobs = today.grid()
    assert [job.refusal for job in jobs] == [None] * len(jobs)
    assert max(job.spec.devices_wanted for job in jobs) <= 2
    # No series is lost by becoming equal to another; the two runs of one server are meant to be.
    assert len(jobs) == TRIALS[name]


@pytest.mark.parametrize("name", TRIALS)
def test_experiment_runs_on_simulated_platform(name: str, tmp_path: Path) -> None:
    planner, node = planner_of(composed(name))
    allocator = Allocator(node)
    for job in planner.grid():
        if job.refusal is not None:
            if set(job.spec.series) & NOT_TOLD_APART.get(name, set()):
                assert "no effect in the model, so it would repeat series" in str(job.refusal)
            else:
                assert str(job.refusal) == NO_MODEL_OF_TGI
            continue
        few = tuple(replace(p, num_prompts=min(p.num_prompts, 8)) for p in job.spec.load_points)
        spec = replace(job.spec, load_points=tuple(dict.fromkeys(few)), folder=str(tmp_path))
        placement = allocator.acquire(spec.devices_wanted)
        assert placement is not None
        result = trial.run(spec, placement, cancelled=lambda: False)
        allocator.release(placement)
        assert result.state is TrialState.COMPLETE, result.failure_message
        assert len(result.measurements) == len(spec.load_points)
        assert all(m.metrics["completed"] == m.load_point.num_prompts for m in result.measurements)

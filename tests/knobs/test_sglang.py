"""The knobs of SGLang: what each release of the table has, and what is refused with what to do."""

from __future__ import annotations

import pytest

from sweeper import knobs
from sweeper.kinds import ENGINES
from sweeper.knobs import check_sglang, covered_sglang, sglang_flags, sglang_releases, sglang_variables
from sweeper.records import Scalar

NEWEST = "0.5.23"


def refusals(
    knob: str, value: Scalar, release: str = NEWEST, *, allow_unknown: bool = False
) -> tuple[str, ...]:
    return check_sglang(
        {knob: value}, flags=sglang_flags(release), release=release, allow_unknown=allow_unknown
    )


def test_release_counts_as_last_one_of_table_that_is_not_newer() -> None:
    assert sglang_releases()[0] == "0.4.10.post2"
    assert sglang_releases()[-1] == NEWEST
    assert covered_sglang("0.5.8") == "0.5.6.post2"
    assert covered_sglang("0.5.9") == "0.5.9"
    assert covered_sglang("0.6.0rc1") == NEWEST
    # Older than the table: its oldest. What is no version at all: its newest.
    assert covered_sglang("0.4.0") == "0.4.10.post2"
    assert covered_sglang("main") == NEWEST


@pytest.mark.parametrize("release", sglang_releases())
def test_knobs_that_issue_is_about_are_flags_of_every_release(release: str) -> None:
    flags = sglang_flags(release)
    sizes = {"tp_size", "dp_size", "pp_size", "ep_size"}
    cache_off = str(ENGINES["sglang"].cache_off)
    wanted = {"dtype", "kv_cache_dtype", "chunked_prefill_size", "max_running_requests", "context_length"}
    assert sizes | wanted | {cache_off, "mem_fraction_static", "attention_backend"} <= set(flags)
    assert {flags[name].type for name in sizes} == {"int"}
    assert flags[cache_off].form == "switch"
    assert "tensor_parallel_size" in flags["tp_size"].aliases
    assert refusals("tp_size", 8, release) == ()


def test_flag_came_and_went_with_releases() -> None:
    # Source: the parsers of these releases. Sizes of graphs were split by phase between 0.5.15 and 0.5.23.
    assert refusals("cuda_graph_max_bs", 64, "0.5.9") == ()
    (refusal,) = refusals("cuda_graph_max_bs", 64)
    assert refusal == (
        "knob 'cuda_graph_max_bs' = 64: SGLang 0.5.23 has no flag of this name; other releases have. "
        "Take it out."
    )
    assert refusals("kv_cache_dtype", "bfloat16", "0.5.9") == ()
    (refusal,) = refusals("kv_cache_dtype", "bfloat16", "0.5.3.post3")
    assert "expected one of auto, fp8_e4m3, fp8_e5m2." in refusal


MISTAKES: dict[str, tuple[str, Scalar, str]] = {
    "another spelling": ("tensor_parallel_size", 8, "the name that SGLang reports it by. Write 'tp_size'."),
    "vLLM's name": ("max_num_seqs", 64, "SGLang 0.5.23 has no flag of this name."),
    "a slip": ("max_runing_requests", 64, "Did you mean 'max_running_requests'?"),
    "a word for a switch": ("disable_radix_cache", "yes", "expected true or false, since it is a switch"),
    "a switch for a number": ("tp_size", True, "expected a value, since it is no switch"),
    "a word for a number": ("max_running_requests", "many", "expected a whole number"),
    "a word for a share": ("mem_fraction_static", "most", "expected a number"),
    "no choice of its": ("schedule_policy", "fifo", "expected one of "),
    "given by the sweeper": (
        "model_path",
        "x",
        "whoever starts the server gives it: choose it by model=NAME",
    ),
    "a port": ("port", 30000, "servers listen on loopback"),
    "a key": ("api_key", "k", "its servers have none and listen on loopback"),
    "a device": ("base_gpu_id", 4, "Choose them by platform.device_ids"),
    "a mask": ("HIP_VISIBLE_DEVICES", "0", "Choose them by platform.device_ids"),
    "random weights": ("load_format", "dummy", "Set model.is_dummy=true, which does it."),
    "a variable of nobody": ("SGLANG_USE_AITRE", 1, "Did you mean 'SGLANG_USE_AITER'?"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_mistake_is_told_with_what_to_do(mistake: str) -> None:
    knob, value, words = MISTAKES[mistake]
    (refusal,) = refusals(knob, value)
    assert refusal.startswith(f"knob '{knob}' = {value!r}: ") or mistake in ("a port", "a key")
    assert words.lower() in refusal.lower()


def test_what_nobody_knows_passes_where_that_is_allowed_and_slips_of_meaning_do_not() -> None:
    assert refusals("own_flag_of_a_fork", 1, allow_unknown=True) == ()
    assert refusals("SGLANG_OWN_OF_A_FORK", 1, allow_unknown=True) == ()
    assert refusals("tensor_parallel_size", 8, allow_unknown=True)
    assert refusals("port", 1, allow_unknown=True)


def test_variables_of_its_own_and_of_what_runs_beneath_pass() -> None:
    assert "SGLANG_USE_AITER" in sglang_variables("0.5.9")
    assert refusals("SGLANG_USE_AITER", 1) == ()
    assert refusals("NCCL_MIN_NCHANNELS", 112) == ()
    assert refusals("instances", 2) == ()


def test_devices_are_tensor_by_pipeline_by_data_parallel_unless_attention_alone_is() -> None:
    # 4 x 2 x 2 ranks; with attention in data parallel, the ranks share the 4 of tensor parallelism.
    assert knobs.devices({"tp_size": 4, "pp_size": 2, "dp_size": 2}) == 16
    assert knobs.devices({"tp_size": 4, "dp_size": 4, "enable_dp_attention": True}) == 4
    assert knobs.devices({"tp_size": 4, "ep_size": 4}) == 4

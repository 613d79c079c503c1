"""The tables as a whole: they agree with one another and with what is said or refused."""

from __future__ import annotations

import csv
import re
from importlib import resources

import pytest

from sweeper import knobs
from sweeper.records import Scalar


def rows(name: str) -> list[dict[str, str]]:
    text = resources.files("sweeper.knobs").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


EXPERIMENT_VALUES: dict[str, tuple[Scalar, ...]] = {
    "tensor_parallel_size": (1, 8),
    "data_parallel_size": (2,),
    "max_num_seqs": (256, 1024),
    "max_num_batched_tokens": (512, 65536),
    "max_model_len": (8192,),
    "enable_chunked_prefill": (True, False),
    "enable_prefix_caching": (True, False),
    "num_scheduler_steps": (1, 15),
    "async_scheduling": (True, False),
    "max_seq_len_to_capture": (4096, 131072),
    "cudagraph_capture_sizes": ("1 2 4",),
    "cuda_graph_sizes": ("512",),
    "kv_cache_dtype": ("auto", "fp8"),
    "swap_space": (16,),
    "dtype": ("float16",),
    "quantization": ("fp8",),
    "enforce_eager": (True, False),
    "gpu_memory_utilization": (0.9,),
    "distributed_executor_backend": ("mp",),
    "disable_log_requests": (True,),
    "disable_frontend_multiprocessing": (True,),
    "VLLM_USE_TRITON_FLASH_ATTN": (0,),
    "VLLM_RPC_TIMEOUT": (30000,),
    "VLLM_INSTALL_PUNICA_KERNELS": (1,),
    "NCCL_MIN_NCHANNELS": (112,),
    "HIP_FORCE_DEV_KERNARG": (1,),
}


@pytest.mark.parametrize("release", knobs.releases())
def test_every_knob_of_experiments_is_said_or_refused_with_release(release: str) -> None:
    order = [row["release"] for row in rows("vllm_releases.csv")]

    def holds(row: dict[str, str]) -> bool:
        first, last = row["first_version"], row["last_version"] or order[-1]
        begins = 0 if first.startswith("pre-") else order.index(first)
        return begins <= order.index(release) <= order.index(last)

    present = {
        row["name"] for table in ("vllm_flags.csv", "vllm_env_vars.csv") for row in rows(table) if holds(row)
    }
    for knob, values in EXPERIMENT_VALUES.items():
        for value in values:
            refusals = knobs.check({knob: value}, release=release)
            for refusal in refusals:
                assert re.search(r"\b0\.\d+\.\d+", refusal.reason), refusal
            if refusals or knob in ("NCCL_MIN_NCHANNELS", "HIP_FORCE_DEV_KERNARG"):
                continue
            said = [
                *knobs.command_line({knob: value}, release=release),
                *knobs.environment({knob: value}, release=release),
            ]
            if value is False and not said:
                continue  # off by silence
            name = said[0].partition("=")[0]
            positive = name.replace("--no-", "--", 1)
            assert positive in present, (release, knob, value, said)


def test_runs_in_tables_are_releases_in_order_and_do_not_overlap() -> None:
    order = [row["release"] for row in rows("vllm_releases.csv")]
    for table, key in (("vllm_flags.csv", "name"), ("vllm_env_vars.csv", "name")):
        ends: dict[str, int] = {}
        for row in rows(table):
            first = 0 if row["first_version"].startswith("pre-") else order.index(row["first_version"])
            last = order.index(row["last_version"]) if row["last_version"] else len(order) - 1
            assert ends.get(row[key], -1) < first <= last, row
            ends[row[key]] = last


def test_history_and_flag_table_agree_on_when_knob_went() -> None:
    flags: dict[str, list[dict[str, str]]] = {}
    for row in rows("vllm_flags.csv"):
        flags.setdefault(row["name"], []).append(row)
    order = [row["release"] for row in rows("vllm_releases.csv")]
    for told in rows("vllm_knob_history.csv"):
        if told["kind"] == "flag" and told["version_removed"]:
            last = order[order.index(told["version_removed"]) - 1]
            assert last in {row["last_version"] for row in flags[told["knob"]]}, told["knob"]

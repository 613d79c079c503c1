"""The kernels in the row of a fresh run of the real vLLM (CPU build), against what its log says."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from analysis import kernels, report
from analysis.study import Study
from sweeper import cli

pytestmark = pytest.mark.vllm


def told(log: str, pattern: str) -> str:
    """Find the one thing that the line of the engine's configuration says, which this build logs once."""
    (line,) = [line for line in log.splitlines() if "Initializing a V1 LLM engine" in line]
    found = re.search(pattern, line)
    assert found is not None, pattern
    return found[1]


def test_columns_of_a_fresh_run_are_what_its_log_says(tmp_path: Path, vllm_python: str) -> None:
    words = (
        *("platform=cpu", "model=tiny_llama", "workload=smoke", "executor=inline", "study.name=study"),
        *("knobs.max_model_len=1024", "space.knobs.max_num_seqs=[4]", "workload.num_prompts=8"),
        *("workload.request_rate_per_s=[null]", f"study.outputs={tmp_path}", f"engine.python={vllm_python}"),
    )
    assert cli.main(words) == cli.OK
    (_, row), *others = pd.read_parquet(tmp_path / "study" / "measurements").iterrows()
    assert not others
    (log_path,) = (tmp_path / "study" / "trials").glob("*/engine-1-0.log")
    log = log_path.read_text(encoding="utf-8")

    # One line of the configuration says all that this build says of kernels.
    assert row["kernel_graphs"] == told(log, r"'cudagraph_mode': <CUDAGraphMode\.(\w+): ")
    assert row["kernel_compile"] == told(log, r"'mode': <CompilationMode\.(\w+): ")
    assert told(log, r"disable_custom_all_reduce=(\w+)") == "True"
    assert row["kernel_all_reduce"] == "custom off: disable_custom_all_reduce"
    assert row["kernel_untuned_shapes"] == 0
    assert not re.search(r"not found tuned config|onfig file not found", log)
    assert not row["kernel_kv_scales_missing"]
    # What it does not say is unknown, and not a guess: which attention, which experts, which AITER.
    silent = ("attention", "attention_prefill", "moe", "linear", "aiter", "aiter_switches", "aiter_modules")
    assert "backend out of potential backends" not in log
    assert {name for name in silent if not pd.isna(row[f"kernel_{name}"])} == set()

    study = Study.load(tmp_path / "study")
    section = kernels.section(study)
    assert f"graphs {row['kernel_graphs']}" in section
    assert section in report.text(study, drawn=[])

"""Which kernels ran, out of lines of logs of real engines on ROCm, CUDA and a processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.engines.environment import gfx_target
from sweeper.engines.kernels import NEEDLES, read_kernels

HERE = Path(__file__).parent
SAMPLES = yaml.safe_load((HERE / "kernel_logs.yaml").read_text(encoding="utf-8"))
CPU_LOG = HERE.parent / "recorded" / "vllm_0.32.0_cpu" / "engine.log"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["name"])
def test_kernels_are_read_from_real_lines(sample: dict[str, Any]) -> None:
    kernels = read_kernels(sample["log"])
    assert dict(kernels.columns) == sample["columns"]
    if "untuned" in sample:
        told = [[shape.kind, shape.table, shape.shape, shape.times] for shape in kernels.untuned]
        assert told == sample["untuned"]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["name"])
def test_lines_with_a_needle_tell_as_much_as_the_whole_log(sample: dict[str, Any]) -> None:
    kept = [line for line in sample["log"].splitlines() if any(needle in line for needle in NEEDLES)]
    assert read_kernels("\n".join(kept)) == read_kernels(sample["log"])


def test_cpu_build_tells_graphs_compilation_and_no_attention() -> None:
    # Recorded from vLLM 0.32.0, which has one backend of attention on a processor and does not name it.
    assert read_kernels(CPU_LOG.read_text(encoding="utf-8")).columns == {
        "kernel_all_reduce": "custom off: disable_custom_all_reduce",
        "kernel_graphs": "NONE",
        "kernel_compile": "NONE",
        "kernel_untuned_shapes": 0,
        "kernel_kv_scales_missing": False,
    }


def test_empty_log_tells_nothing_rather_than_zero() -> None:
    assert read_kernels("").columns == {}


def test_mode_asked_for_is_not_the_one_that_holds() -> None:
    asked = (
        "INFO 11-27 15:03:04 [u.py:1] non-default args: {'compilation_config': {'cudagraph_mode': 'FULL'}}"
    )
    lowered = "INFO 11-27 15:03:09 [vllm.py:1] Pooling models do not support full cudagraphs. Overriding "
    assert "kernel_graphs" not in read_kernels(asked).columns
    told = read_kernels(f"{asked}\n{lowered}cudagraph_mode to PIECEWISE.").columns
    assert told["kernel_graphs"] == "PIECEWISE"


@pytest.mark.parametrize(
    ("compilation", "graphs", "level"),
    [
        # vLLM 0.9 and 0.10: pydantic's JSON, with levels for modes.
        ('{"level":3,"use_cudagraph":true,"full_cuda_graph":false}', "PIECEWISE", "VLLM_COMPILE"),
        ('{"level":3,"use_cudagraph":true,"full_cuda_graph":true}', "FULL", "VLLM_COMPILE"),
        ('{"level":0,"use_cudagraph":false,"full_cuda_graph":false}', "NONE", "NONE"),
        ('{"level":3,"cudagraph_mode":[2,1],"use_cudagraph":true}', "FULL_AND_PIECEWISE", "VLLM_COMPILE"),
    ],
)
def test_earlier_forms_of_graphs_and_levels(compilation: str, graphs: str, level: str) -> None:
    line = "INFO 10-30 14:20:52 [core.py:93] Initializing a V1 LLM engine (v0.10.1) with config: model='m', "
    columns = read_kernels(f"{line}enforce_eager=False, compilation_config={compilation}").columns
    assert (columns["kernel_graphs"], columns["kernel_compile"]) == (graphs, level)


def test_gfx_target_is_read_from_the_drivers_nodes(tmp_path: Path) -> None:
    # A processor, an MI300X and an MI250X: 9.4.2 and 9.0.10, whose stepping is written as a.
    for node, version in enumerate((0, 90402, 90010)):
        folder = tmp_path / str(node)
        folder.mkdir()
        (folder / "properties").write_text(f"simd_count 304\ngfx_target_version {version}\nvendor_id 4098\n")
    assert gfx_target(tmp_path) == "gfx90a, gfx942"
    assert gfx_target(tmp_path / "absent") is None

"""A machine's platform is found by asking the vendors' tools, and the reason is told."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sweeper.records import Platform
from sweeper.topology import Answer, detect
from tests.topology.replaying import RECORDED, Rows, changed, recorded, replay


def test_mi300x_is_detected() -> None:
    found = detect(replay(recorded("rocm_6.4_cpx_nps4")))
    assert found.platform is Platform.MI300X
    assert found.node is not None
    assert len(found.node.devices) == 64
    assert "amd-smi answered" in found.reason
    assert "CPX/NPS4" in found.reason


def test_cuda_is_detected_where_no_amd_gpu_answers(tmp_path: Path) -> None:
    answers = {"nvidia-smi": (RECORDED / "nvidia/h100x8.csv").read_text()}
    found = detect(replay(answers), root=tmp_path)
    assert found.platform is Platform.CUDA
    assert found.node is not None
    assert found.node.devices[0].name == "NVIDIA H100 80GB HBM3"


def test_machine_without_gpus_is_simulated_and_reason_says_what_was_tried() -> None:
    found = detect(replay({}))
    assert found.platform is Platform.SIMULATED
    assert found.node is None
    assert found.reason == (
        "no AMD GPU answered (amd-smi: not found) and no NVIDIA GPU answered (nvidia-smi: not found)"
    )


def test_broken_amd_smi_is_named_in_reason() -> None:
    broken = Answer(exit_status=1, stdout="", stderr="Permission denied")
    found = detect(replay({"amd-smi": broken}))
    assert found.platform is Platform.SIMULATED
    assert "Permission denied" in found.reason


def test_other_amd_gpu_is_not_taken_for_mi300x() -> None:
    def to_laptop(rows: Rows) -> None:
        del rows[1:]
        rows[0]["asic"] = {"market_name": "AMD Radeon 780M", "target_graphics_version": "gfx1103"}
        rows[0]["partition"] = "N/A"

    def first_only(rows: Rows) -> None:
        del rows[1:]

    found = detect(changed("rocm_6.2_spx", listed=first_only, static=to_laptop))
    assert found.platform is Platform.SIMULATED
    assert found.reason.startswith("no MI300X answered (amd-smi: found ")
    assert "AMD Radeon 780M" in found.reason


def test_probe_that_hangs_does_not_stop_detection() -> None:
    def hang(command: Sequence[str]) -> Answer:
        raise TimeoutError(f"{command[0]} did not end within 60 s")

    found = detect(hang)
    assert found.platform is Platform.SIMULATED
    assert "amd-smi did not end within 60 s" in found.reason


def test_node_is_read_end_to_end_from_program_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "amd-smi"
    folder = RECORDED / "rocm_7.0_dpx"
    stub.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        f"print(pathlib.Path({str(folder)!r}, sys.argv[1] + '.json').read_text(encoding='utf-8'), end='')\n"
    )
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    found = detect()

    assert found.platform is Platform.MI300X
    assert found.node is not None
    assert len(found.node.devices) == 16
    assert found.node.mode_label == "DPX/NPS1"

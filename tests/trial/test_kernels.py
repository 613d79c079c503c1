"""The kernels of a trial's engine: out of its log after its end, into its row and a file of shapes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

from sweeper.engines import Cancelled
from sweeper.records import LoadPoint, Placement, Platform, TrialSpec
from sweeper.store.store import Store
from sweeper.trial import kernels, trial
from tests.stand_ins import StandInClient, StandInEngine, StandInServer

LINES = (
    "INFO 10-30 14:20:52 [rocm.py:850] Using ROCM_ATTN backend out of potential backends: ['ROCM_ATTN'].\n"
    "INFO 10-30 14:20:52 [cuda.py:1] 127.0.0.1 - POST /v1/completions 200\n"
)
UNTUNED = (
    "(Worker_TP3 pid=1) [aiter] shape is M:72, N:512, K:7168, not found tuned config in "
    "/tmp/aiter_configs/a8w8_blockscale_tuned_gemm.csv, will use default config!\n"
)


@dataclass
class LoggingEngine(StandInEngine):
    """Starts servers that write a log, and warn of a shape only when they are stopped."""

    folder: Path = Path()

    def start(
        self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled
    ) -> StandInServer:
        log = self.folder / f"engine-1-{restart}.log"
        log.write_text(LINES)
        return LateServer(diary=self.diary, log_path=str(log))


class LateServer(StandInServer):
    def stop(self) -> float:
        with Path(str(self.log_path)).open("a") as log:
            log.write(UNTUNED)
        return super().stop()


@pytest.fixture
def spec(simulated_spec: TrialSpec) -> TrialSpec:
    point = LoadPoint(dataset="random", num_prompts=4, input_len=8, output_len=8)
    engine = replace(simulated_spec.engine, kind="vllm", release="0.32.0")
    return replace(simulated_spec, platform=Platform.CPU, engine=engine, load_points=(point,), repeats=2)


def test_row_and_file_have_what_the_log_told_until_the_end(
    spec: TrialSpec, placement: Placement, tmp_path: Path
) -> None:
    engine, client = LoggingEngine(folder=tmp_path), StandInClient()
    client.diary = engine.diary
    result = trial.run(
        spec, placement, cancelled=lambda: False, engine=engine, open_client=lambda spec, placement: client
    )

    store = Store(tmp_path / "study")
    store.append(result, queued_s=0.0, knobs=[])
    row = store.read().iloc[0]

    assert row["kernel_attention"] == "ROCM_ATTN"
    assert row["kernel_untuned_shapes"] == 1
    assert pd.isna(row["kernel_moe"])
    assert (tmp_path / "engine-1-1.untuned.csv").read_text() == (
        'kind,table,shape,times\ngemm,a8w8_blockscale_tuned_gemm.csv,"M:72, N:512, K:7168",1\n'
    )


def test_switches_are_those_of_the_engines_own_environment(spec: TrialSpec, tmp_path: Path) -> None:
    log = tmp_path / "engine-1-0.log"
    log.write_text(LINES)
    given = {"VLLM_ROCM_USE_AITER": "1", "VLLM_ROCM_USE_AITER_MOE": "0"}
    log.with_suffix(".command.json").write_text(json.dumps({"argv": [], "environment": given}))
    server = StandInServer(diary=[], log_path=str(log))

    columns = kernels.kernels_of(server, replace(spec, platform=Platform.MI300X))
    assert columns["kernel_aiter"] is True
    assert "MHA" in str(columns["kernel_aiter_switches"])
    assert "MOE" not in str(columns["kernel_aiter_switches"])
    assert "kernel_aiter" not in kernels.kernels_of(server, spec)
    assert not log.with_suffix(kernels.SHAPES_SUFFIX).exists()


def test_engine_without_a_log_or_of_another_kind_tells_nothing(spec: TrialSpec, tmp_path: Path) -> None:
    log = tmp_path / "engine-1-0.log"
    log.write_text(LINES)
    assert kernels.kernels_of(StandInServer(diary=[], log_path=None), spec) == {}
    assert kernels.kernels_of(StandInServer(diary=[], log_path=str(tmp_path / "gone.log")), spec) == {}
    other = replace(spec, engine=replace(spec.engine, kind="tgi"))
    assert kernels.kernels_of(StandInServer(diary=[], log_path=str(log)), other) == {}


def test_starts_that_differ_are_both_told() -> None:
    one = {"kernel_attention": "ROCM_ATTN", "kernel_untuned_shapes": 3, "kernel_kv_scales_missing": False}
    other = {"kernel_attention": "TRITON_ATTN", "kernel_untuned_shapes": 5, "kernel_kv_scales_missing": True}
    assert kernels.together([one, one]) == one
    assert kernels.together([one, other]) == {
        "kernel_attention": "ROCM_ATTN | TRITON_ATTN",
        "kernel_untuned_shapes": 5,
        "kernel_kv_scales_missing": True,
    }

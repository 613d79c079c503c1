"""Kernels in the report and in comparisons, and advice: each rule where it holds and where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis import compare, kernel_advice, kernels, report
from analysis.study import Study
from sweeper.records import Provenance, Scalar, TrialResult

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

RUNS = [[{"request_throughput_per_s": 4.0}]]
USUAL: dict[str, Scalar] = {
    "kernel_attention": "ROCM_ATTN",
    "kernel_graphs": "FULL_AND_PIECEWISE",
    "kernel_aiter": True,
    "kernel_aiter_switches": "MHA, MOE",
    "kernel_untuned_shapes": 0,
    "kernel_kv_scales_missing": False,
}


@pytest.fixture
def ran(trial: MakeTrial) -> Callable[..., TrialResult]:
    """Make a measured trial of some knobs whose engine told of kernels, the usual ones but for some."""

    def make(knobs: dict[str, Scalar], *, name: str = "steps", **told: Scalar) -> TrialResult:
        made = trial(knobs=knobs, runs=RUNS, provenance=Provenance.MEASURED, release="0.32.0", name=name)
        return replace(made, kernels={**USUAL, **told}, surroundings={"numa_balancing": 0})

    return make


def test_report_says_what_differs_besides_the_one_knob(
    ran: Callable[..., TrialResult], study_folder: MakeFolder
) -> None:
    study = Study.load(
        study_folder(
            ran({"max_num_seqs": 64}),
            ran({"max_num_seqs": 512}, kernel_attention="TRITON_ATTN"),
            ran({"max_num_seqs": 1024, "block_size": 64}, kernel_attention="ROCM_AITER_FA"),
        )
    )

    found = kernels.pairs(study)
    assert found[["knob", "kernel"]].drop_duplicates().values.tolist() == [["max_num_seqs", "attention"]]
    assert {*found["first"], *found["second"]} == {"ROCM_ATTN", "TRITON_ATTN"}
    written = kernels.section(study)
    assert "graphs FULL_AND_PIECEWISE" in written.replace("\\", "")
    assert "More than the knob differs" in written
    assert "Advice" not in written
    assert written in report.text(study, drawn=[])


def test_settings_with_the_same_kernels_are_told_in_a_line(
    ran: Callable[..., TrialResult], study_folder: MakeFolder
) -> None:
    study = Study.load(study_folder(ran({"max_num_seqs": 64}), ran({"max_num_seqs": 512})))
    assert kernels.pairs(study).empty
    written = kernels.section(study)
    assert "The same in every setting" in written
    assert "|" not in written


def test_nothing_is_said_where_no_kernel_is_told(trial: MakeTrial, study_folder: MakeFolder) -> None:
    study = Study.load(study_folder(trial(runs=RUNS)))
    assert kernels.section(study) == ""
    assert "Kernels" not in compare.text(study, study)


def test_compare_names_kernels_that_moved(ran: Callable[..., TrialResult], study_folder: MakeFolder) -> None:
    old = Study.load(study_folder(ran({"k": 1}, name="old", kernel_aiter=False), name="old"))
    new = Study.load(study_folder(ran({"k": 1}, name="new", kernel_moe="AITER (Fp8)"), name="new"))

    written = compare.text(old, new)
    assert "## Kernels that ran" in written
    table = kernels.between({"k": kernels.trials(old).iloc[0]}, {"k": kernels.trials(new).iloc[0]})
    # Experts are told of by one side only.
    assert table[["kernel", "first", "second"]].values.tolist() == [["AITER", "no", "yes"]]
    assert "The same, as far as both logs tell" in compare.text(old, old)


@pytest.mark.parametrize(
    ("name", "told", "around"),
    [
        ("AITER off", {"kernel_aiter": False}, {}),
        ("NUMA balancing on", {}, {"numa_balancing": 1}),
        ("Shapes untuned", {"kernel_untuned_shapes": 3}, {}),
        ("KV scales missing", {"kernel_kv_scales_missing": True}, {}),
        ("Graphs off", {"kernel_graphs": "NONE"}, {}),
    ],
)
def test_each_rule_is_given_where_it_holds_with_its_source(
    ran: Callable[..., TrialResult],
    study_folder: MakeFolder,
    name: str,
    told: dict[str, Scalar],
    around: dict[str, Scalar],
) -> None:
    bad = ran({"k": 1}, **told)
    study = Study.load(study_folder(replace(bad, surroundings={**bad.surroundings, **around}), ran({"k": 2})))

    (line,) = kernel_advice.lines(kernels.trials(study))
    assert line.startswith(f"- **{name}** (k=1; ")
    assert "Source: " in line
    assert line in kernels.section(study)


def test_no_advice_on_aiter_for_a_release_without_it_or_on_graphs_of_a_processor() -> None:
    before = pd.Series({"engine_release": "0.6.2", "platform": "mi300x", "kernel_aiter": False})
    on_cpu = pd.Series({"engine_release": "0.32.0", "platform": "cpu", "kernel_graphs": "NONE"})
    assert kernel_advice.given(before) == []
    assert kernel_advice.given(on_cpu) == []

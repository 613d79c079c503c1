"""Who ran where and when: from stored rows and from a plan, with what was not measured marked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis import cli, timeline
from analysis.study import Study
from sweeper.errors import ConfigError
from sweeper.records import Placement, Provenance, TrialResult
from tests.analysis.conftest import MakeTrial

T0 = 1_700_000_000.0
PLAN_HEAD = "setting,trial_key,node,device,gpu,start_s,end_s,is_exclusive,provenance,basis\n"


def on(result: TrialResult, *devices: int) -> TrialResult:
    """The same trial on other whole GPUs."""
    return replace(result, placement=Placement(node="node-7", devices=devices, parents=devices))


@pytest.fixture
def measured(trial: MakeTrial, study_folder: Callable[..., Path]) -> Path:
    """Two trials of half a node: 3 + 1 + 2 s from T0 - 4, and 1 s at T0 + 3."""
    first = trial(
        series=("a", "b"),
        knobs={"x": 1},
        runs=[[{"request_throughput_per_s": 1.0}]],
        provenance=Provenance.MEASURED,
        ended_at=T0,
        phases={"engine_start_s": 2.0, "warmup_s": 1.0, "stop_s": 2.0},
    )
    second = trial(
        knobs={"x": 2, "host_numa_balancing": False}, provenance=Provenance.MEASURED, ended_at=T0 + 4
    )
    return study_folder(first, on(second, 4, 5))


def test_measured_trial_lasts_from_start_of_its_engine_to_its_stop(measured: Path) -> None:
    table = timeline.table_of(Study.load(measured))
    spans = table.groupby("setting")[["start_s", "end_s"]].first()
    assert spans.loc["a, b"].tolist() == [0.0, 6.0]
    # The other failed: from 3 s to 4 s after T0, and the first began 4 s before T0.
    assert spans.loc["host_numa_balancing=False x=2"].tolist() == [7.0, 8.0]
    assert table["device"].tolist() == [0, 1, 2, 3, 4, 5]
    assert table["gpu"].tolist() == [0, 1, 2, 3, 4, 5]
    assert table["is_exclusive"].tolist() == [False] * 4 + [True] * 2


def test_idle_is_what_no_trial_held(measured: Path) -> None:
    # 4 devices for 6 s and 2 for 1 s, of 6 devices for 8 s: 26 of 48
    assert timeline.idle_share(timeline.table_of(Study.load(measured))) == pytest.approx(22 / 48)


def test_partitions_know_their_gpu(trial: MakeTrial, study_folder: Callable[..., Path]) -> None:
    sixteen = Placement(node="node-7", devices=tuple(range(16)), parents=(0, 1), partition_mode="CPX")
    result = replace(trial(), placement=sixteen)
    table = timeline.table_of(Study.load(study_folder(result)))
    assert table["gpu"].tolist() == [0] * 8 + [1] * 8


def test_simulated_study_shows_when_it_was_computed_and_says_so(
    trial: MakeTrial, study_folder: Callable[..., Path]
) -> None:
    result = trial(runs=[[{"request_throughput_per_s": 1.0}]], phases={"engine_start_s": 80.0})
    study = Study.load(study_folder(result))
    table = timeline.table_of(study)
    assert table[["start_s", "end_s"]].iloc[0].tolist() == [0.0, 1.0]
    figure = timeline.draw(table, title="t", subtitle="s", origin="Study steps")
    texts = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert "SIMULATED - no GPU was measured" in texts
    assert "Times are those of computing the model, not of serving" in texts
    assert "devices idle 0.0 % of the time" in texts


def test_measured_chart_has_no_band_and_marks_who_was_alone(measured: Path) -> None:
    table = timeline.table_of(Study.load(measured))
    figure = timeline.draw(table, title="t", subtitle="s", origin="Study steps, measured")
    texts = " ".join(text.get_text() for text in figure.texts)
    assert "SIMULATED" not in texts and "PREDICTED" not in texts
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["1  a, b", "2  host_numa_balancing=False x=2", "alone on its node"]
    axes = figure.axes[0]
    hatched = [bool(patch.get_hatch()) for patch in axes.patches]
    assert hatched == [False, True]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"device {n}" for n in range(6)]


def test_plan_is_drawn_as_predicted_with_its_idle_devices(tmp_path: Path) -> None:
    plan = tmp_path / "plan.csv"
    plan.write_text(
        f"{PLAN_HEAD}one,k1,n,0,0,0.0,60.0,False,predicted,modelled\n"
        "two,k2,n,0,0,60.0,90.0,True,predicted,modelled\n,,n,1,0,,,,predicted,\n",
        encoding="utf-8",
    )
    table = timeline.read_plan(plan)
    # Of 2 devices for 90 s one was held throughout.
    assert timeline.idle_share(table) == 0.5
    written = timeline.write(plan)
    assert [path.name for path in written] == [
        "plan-timeline.png",
        "plan-timeline.svg",
        "plan-timeline.csv",
    ]
    drawing = written[1].read_text(encoding="utf-8")
    assert timeline.PREDICTED_BAND in drawing
    assert "2 trials on the 2 devices of the plan" in drawing
    pd.testing.assert_frame_equal(timeline.read_plan(written[2]), table)


def test_many_partitions_are_named_by_their_gpu(tmp_path: Path) -> None:
    rows = "".join(f"a,k,n,{d},{d // 8},0,9,False,predicted,modelled\n" for d in range(64))
    plan = tmp_path / "plan.csv"
    plan.write_text(PLAN_HEAD + rows, encoding="utf-8")
    figure = timeline.draw(timeline.read_plan(plan), title="t", subtitle="s", origin="o")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert [name for name in names if name] == [f"GPU {gpu}" for gpu in range(8)]
    assert len(figure.axes[0].patches) == 1  # neighbouring lanes of one trial are one box


def test_command_writes_into_studys_figures(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["timeline", str(measured)]) == 0
    told = capsys.readouterr().out.split()
    assert told == [str(measured / "figures" / f"timeline.{end}") for end in ("png", "svg", "csv")]
    assert all(Path(path).stat().st_size > 500 for path in told)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file; expected a study's folder, or what plan=true"),
        ("a,b\n1,2\n", "has no column setting, trial_key"),
        (PLAN_HEAD, "names no trial"),
        ("", "is not a table"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "plan.csv"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        timeline.write(path)


def test_study_in_which_nothing_ran_has_no_timeline(
    trial: MakeTrial, study_folder: Callable[..., Path]
) -> None:
    refused = replace(trial(), placement=None)
    with pytest.raises(ConfigError, match="no stored trial says when it ran"):
        timeline.table_of(Study.load(study_folder(refused)))

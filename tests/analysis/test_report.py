"""The report answers the question from the folder alone, and hides neither failure nor simulation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import cli, origins, report
from analysis.study import Study
from sweeper.errors import ConfigError, StoreError
from sweeper.records import Model, Provenance, TrialResult
from sweeper.store.store import columns_markdown

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

ABOUT = {
    "experiment": "case2_sched_steps",
    "question": "How many steps?",
    "source": "Case 2",
    "series": {"ten": {"label": "10 steps", "published": "no_cp_steps10"}, "five": {"label": "5 steps"}},
    "objectives": [{"metric": "request_throughput_per_s", "direction": "maximize"}],
}


def run(value: float) -> list[list[dict[str, float]]]:
    return [[{"request_throughput_per_s": value}]]


@pytest.fixture
def folder(trial: MakeTrial, study_folder: MakeFolder) -> Path:
    return study_folder(
        trial(series=("ten",), knobs={"num_scheduler_steps": 10}, runs=run(11.407)),
        trial(series=("five",), knobs={"num_scheduler_steps": 5}),
        about=ABOUT,
    )


def test_report_of_simulated_study(folder: Path) -> None:
    files = report.write(folder)

    written = files.report.read_text(encoding="utf-8")
    assert written.startswith("# How many steps?\n\n**Simulated: no GPU was measured.**")
    assert "2 trials (1 complete, 1 failed)" in written
    assert "**10 steps** has the highest request_throughput_per_s, at 16 QPS: 11.41 (n=1)" in written
    assert "Verdict: alone" in written
    assert "As it was run:\n\n```bash\nvllm serve 70B --num_scheduler_steps=10\n```" in written
    assert "vllm serve meta-llama/Llama-3.1-70B-Instruct --port 8000 --num-scheduler-steps 10" in written
    assert "![Requests per second](figures/request_throughput_per_s.png)" in written
    assert "| 10 steps | 11.41 (n=1) |" in written
    # The article printed 10.37 at 16 QPS; 11.407 / 10.37 = 1.10
    assert "| 10 steps | 10.37 (+10 %) |" in written
    assert "| 5 steps | failed | out_of_memory | HIP out of memory | trials/ab/engine.log |" in written
    assert "| vllm | 0.6.2 |" in written
    assert "| Time | 2023-11-14 22:13 to 2023-11-14 22:13 UTC |" in written
    assert files.report == folder / "report.md"
    assert {path.suffix for path in files.figures} == {".png", ".svg", ".csv"}
    assert all(path.exists() for path in files.figures)


def test_text_shows_only_charts_that_were_drawn(folder: Path) -> None:
    written = report.text(Study.load(folder), drawn=[])

    assert "![" not in written
    assert "## Best setting" in written


def test_measured_study_names_its_node_and_dummy_weights(
    trial: MakeTrial, study_folder: MakeFolder, llama_70b: Model
) -> None:
    tiny = Model(name="tiny", path="tiny", shape=llama_70b.shape, is_dummy=True)
    folder = study_folder(trial(runs=run(1.0), provenance=Provenance.MEASURED, model=tiny))

    sentence = origins.provenance_sentence(Study.load(folder))

    assert sentence == ("**Measured** on node-7 (mi300x). Weights are random: only speed means anything.")


def test_published_figures_of_another_model_are_said_to_be_left_out(
    trial: MakeTrial, study_folder: MakeFolder, llama_70b: Model
) -> None:
    small = Model(name="Llama-3.1-8B-Instruct", path="8b", shape=llama_70b.shape)
    folder = study_folder(trial(series=("ten",), runs=run(1.0), model=small), about=ABOUT)

    written = report.write(folder).report.read_text(encoding="utf-8")

    assert "Published figures are of meta-llama/Llama-3.1-70B-Instruct and left out" in written


def test_study_of_failures_has_report_without_charts(trial: MakeTrial, study_folder: MakeFolder) -> None:
    files = report.write(study_folder(trial()))

    assert files.figures == ()
    written = files.report.read_text(encoding="utf-8")
    assert "No setting has a number at every load point yet." in written
    assert "HIP out of memory" in written


def test_study_is_read_with_what_its_json_says(folder: Path) -> None:
    study = Study.load(folder)

    assert (study.name, study.experiment, study.source) == ("steps", "case2_sched_steps", "Case 2")
    assert study.series["ten"].published == "no_cp_steps10"
    assert study.series["five"].order == 1
    assert study.is_simulated
    assert [o.name for o in study.objectives] == ["request_throughput_per_s"]


def test_study_without_json_still_has_its_numbers(trial: MakeTrial, study_folder: MakeFolder) -> None:
    study = Study.load(study_folder(trial(runs=run(1.0))))

    assert study.series == {}
    assert [(o.metric, o.direction) for o in study.objectives] == [("request_throughput_per_s", "maximize")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"study\.json: is not JSON"),
        ("[]", r"study\.json: holds a list; expected a JSON object"),
    ],
)
def test_broken_study_json_is_named(folder: Path, content: str, message: str) -> None:
    (folder / "study.json").write_text(content, encoding="utf-8")

    with pytest.raises(StoreError, match=message):
        Study.load(folder)


def test_unknown_metric_of_objective_is_named(trial: MakeTrial, study_folder: MakeFolder) -> None:
    wrong = {"metric": "mean_tttft_ms", "direction": "minimize"}
    folder = study_folder(trial(runs=run(1.0)), about={"objectives": [wrong]})

    with pytest.raises(StoreError, match="Did you mean 'mean_ttft_ms'"):
        Study.load(folder)


def test_unknown_run_of_series_is_named(trial: MakeTrial, study_folder: MakeFolder) -> None:
    folder = study_folder(trial(runs=run(1.0)), about={"series": {"a": {"run": "secnd"}}})

    with pytest.raises(StoreError, match=r"series 'a' has run 'secnd'; expected one of .*'second'"):
        Study.load(folder)


def test_report_says_where_time_went(trial: MakeTrial, study_folder: MakeFolder) -> None:
    folder = study_folder(trial(runs=run(1.0), phases={"engine_start_s": 2.5}))

    written = report.write(folder).report.read_text(encoding="utf-8")

    # 2.5 s start, 1 s measuring, 0.5 s around it.
    assert "## Where the time went" in written
    assert "| engine start | 2.5 | 62.5 % |" in written
    assert "25 % of the time was measuring." in written


def test_hit_rates_are_shown_where_they_were_counted(trial: MakeTrial, study_folder: MakeFolder) -> None:
    folder = study_folder(
        trial(
            series=("ten",),
            knobs={"k": 1},
            runs=run(1.0),
            telemetry_at=lambda _: {"prefix_cache_hit_rate": 0.009},
        ),
        trial(series=("five",), knobs={"k": 2}, runs=run(1.0)),
        about=ABOUT,
    )

    section = report.hit_rates(Study.load(folder))

    assert "| 10 steps | 0.9 % (n=1) |" in section
    assert "| 5 steps | not counted |" in section


def test_study_without_counted_cache_has_no_section_on_it(folder: Path) -> None:
    assert report.hit_rates(Study.load(folder)) == ""


def test_environment_is_table_of_its_own(folder: Path) -> None:
    assert report.environment(Study.load(folder).frame).startswith("| what | value |\n")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        report.write(tmp_path / "nowhere")


def test_report_command_prints_what_it_wrote(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(folder)]) == 0

    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("figures/request_throughput_per_s.png")
    assert printed[-1] == str(folder / "report.md")


def test_figures_command_draws_without_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["figures", str(folder)]) == 0

    assert len(capsys.readouterr().out.splitlines()) == 3
    assert not (folder / "report.md").exists()


def test_columns_command_prints_described_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["columns"]) == 0

    assert capsys.readouterr().out == columns_markdown()


@pytest.mark.parametrize(
    ("name", "reason"), [("nowhere", "no such folder"), ("", "holds no results; expected Parquet parts")]
)
def test_wrong_folder_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, reason: str
) -> None:
    assert cli.main(["figures", str(tmp_path / name)]) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert reason in printed.err
    assert printed.err.count("\n") == 1

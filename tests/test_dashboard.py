"""What the dashboard shows of a study, and the command that serves it."""

from __future__ import annotations

import socket
from pathlib import Path

import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta

from sweeper import cli, dashboard
from sweeper.errors import ConfigError
from sweeper.records import Objective
from sweeper.search import Search, storage_url
from sweeper.space import Choice, Space

THROUGHPUT = Objective(metric="request_throughput_per_s", direction="maximize")
SPACE = Space(domains={"max_num_seqs": Choice(values=(64, 256))})


def opened(outputs: Path) -> Search:
    return Search(
        storage=storage_url(outputs),
        name="study",
        space=SPACE,
        objectives=[THROUGHPUT],
        method="grid",
        seed=0,
        artifacts=dashboard.artifacts_folder(outputs),
    )


def loaded(outputs: Path) -> optuna.Study:
    return optuna.load_study(study_name="study", storage=storage_url(outputs))


def note(**more: object) -> str:
    given: dict[str, object] = {
        "question": "How large a batch?",
        "is_simulated": False,
        "objectives": [THROUGHPUT],
        "bounds": [],
        "environment": dashboard.table({"Node": "8 x MI300X"}),
        "results": "outputs/study",
        "source": "",
    }
    return dashboard.note(**{**given, **more})  # type: ignore[arg-type]


def notes_of(outputs: Path) -> str:
    study = loaded(outputs)
    kept = study._storage.get_study_system_attrs(study._study_id)
    return "".join(str(text) for key, text in sorted(kept.items()) if key.startswith("dashboard:note_str"))


def shown_files(outputs: Path, trial: int | None = None) -> dict[str, bytes]:
    """Give the artifacts of a study or of one of its trials by name, as the dashboard reads them."""
    study = loaded(outputs)
    target = study if trial is None else study.trials[trial]
    folder = dashboard.artifacts_folder(outputs)
    metas = get_all_artifact_meta(target, storage=study._storage)
    assert len({meta.filename for meta in metas}) == len(metas)
    return {meta.filename: (folder / meta.artifact_id).read_bytes() for meta in metas}


def test_a_note_says_question_goals_environment_and_where_results_are() -> None:
    text = note()
    assert text.startswith("# How large a batch?\n\n- maximize `request_throughput_per_s`\n\n")
    assert "| Node | 8 x MI300X |" in text
    assert "Results: `outputs/study`" in text
    assert "imulated" not in text
    assert dashboard.CAVEAT not in text


def test_a_note_of_a_study_with_bounds_warns_that_the_dashboard_ignores_them() -> None:
    text = note(bounds=["p99_ttft_ms at 16 QPS <= 2000"], answers=["64: 12.5 requests/s"], is_simulated=True)
    assert "- keep `p99_ttft_ms at 16 QPS <= 2000`" in text
    assert f"> {dashboard.CAVEAT}" in text
    assert "## Best by the report\n\n- 64: 12.5 requests/s" in text
    assert "**Simulated: no GPU was measured.**" in text


def test_a_trial_shows_the_file_that_was_attached_before_it_ended(tmp_path: Path) -> None:
    chart = tmp_path / "latencies.png"
    chart.write_bytes(b"a picture")
    search = opened(tmp_path)
    candidate = search.begin(next(SPACE.grid()))
    search.attach(candidate.number, chart)
    search.tell(candidate.number, [1.0], {})
    search.close()
    assert shown_files(tmp_path, trial=0) == {"latencies.png": b"a picture"}


def test_a_study_that_ends_again_shows_each_chart_once_and_its_latest_note(tmp_path: Path) -> None:
    opened(tmp_path).close()
    chart = tmp_path / "throughput.png"
    for text in ("first", "second"):
        chart.write_bytes(text.encode())
        dashboard.show_study(
            storage_url(tmp_path),
            "study",
            note=note(question=text),
            files=[chart, tmp_path / "missing.png"],
            folder=dashboard.artifacts_folder(tmp_path),
        )
    assert shown_files(tmp_path) == {"throughput.png": b"second"}
    assert "# second" in notes_of(tmp_path)
    assert "# first" not in notes_of(tmp_path)


def test_a_chart_that_cannot_be_kept_costs_no_result(tmp_path: Path) -> None:
    dashboard.artifacts_folder(tmp_path).write_text("a file where a folder is wanted")
    chart = tmp_path / "latencies.png"
    chart.write_bytes(b"a picture")
    search = opened(tmp_path)
    candidate = search.begin(next(SPACE.grid()))
    search.attach(candidate.number, chart)
    search.tell(candidate.number, [1.0], {})
    search.close()
    assert loaded(tmp_path).trials[0].value == 1.0


def test_the_dashboard_is_served_on_loopback_with_its_files(tmp_path: Path) -> None:
    command = dashboard.command("sqlite:///x.db", outputs=tmp_path, port=8081)
    assert Path(command[0]).name == "optuna-dashboard"
    assert command[1:] == [
        *("sqlite:///x.db", "--artifact-dir", str(tmp_path / "artifacts")),
        *("--host", "127.0.0.1", "--port", "8081"),
    ]


def test_a_password_does_not_go_into_the_list_of_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "postgresql+psycopg://me:planted@host/studies"
    assert cli.main(["dashboard", str(tmp_path), "--storage", url]) == cli.MISTAKE
    said = capsys.readouterr().err
    assert "planted" not in said
    assert "Leave it out, and give it in PGPASSWORD or ~/.pgpass." in said


def test_a_port_that_is_taken_is_refused_when_asked_for_and_avoided_otherwise() -> None:
    with socket.socket() as taken:
        taken.bind((dashboard.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port: {port} cannot be listened on .* Choose another"):
            dashboard.choose_port(port)
        assert dashboard.choose_port(None) not in (0, port)
    with pytest.raises(ConfigError, match="--port: 99999 cannot be listened on"):
        dashboard.choose_port(99999)

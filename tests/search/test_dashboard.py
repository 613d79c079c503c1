"""What the dashboard shows of a study, and the command that serves it."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna_dashboard import wsgi

from sweeper import cli
from sweeper.errors import ConfigError
from sweeper.records import Constraint, Objective
from sweeper.search import Search, dashboard, storage_url
from sweeper.search.dashboard_server import keeping_bounds
from sweeper.space.domains import Choice
from sweeper.space.space import Space

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


def test_note_says_question_goals_environment_and_where_results_are() -> None:
    text = note()
    assert text.startswith("# How large a batch?\n\n- maximize `request_throughput_per_s`\n\n")
    assert "| Node | 8 x MI300X |" in text
    assert "Results: `outputs/study`" in text
    assert "imulated" not in text
    assert dashboard.CAVEAT not in text


def test_note_of_study_with_bounds_says_how_dashboard_treats_them() -> None:
    text = note(bounds=["p99_ttft_ms at 16 QPS <= 2000"], answers=["64: 12.5 requests/s"], is_simulated=True)
    assert "- keep `p99_ttft_ms at 16 QPS <= 2000`" in text
    assert f"> {dashboard.CAVEAT}" in text
    assert "## Best by the report\n\n- 64: 12.5 requests/s" in text
    assert "**Simulated: no GPU was measured.**" in text


def test_trial_shows_file_that_was_attached_before_it_ended(tmp_path: Path) -> None:
    chart = tmp_path / "latencies.png"
    chart.write_bytes(b"a picture")
    search = opened(tmp_path)
    candidate = search.begin(next(SPACE.grid()))
    search.attach(candidate.number, chart)
    search.tell(candidate.number, [1.0], {})
    search.close()
    assert shown_files(tmp_path, trial=0) == {"latencies.png": b"a picture"}


def test_study_that_ends_again_shows_each_chart_once_and_its_latest_note(tmp_path: Path) -> None:
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


def test_chart_that_cannot_be_kept_costs_no_result(tmp_path: Path) -> None:
    dashboard.artifacts_folder(tmp_path).write_text("a file where a folder is wanted")
    chart = tmp_path / "latencies.png"
    chart.write_bytes(b"a picture")
    search = opened(tmp_path)
    candidate = search.begin(next(SPACE.grid()))
    search.attach(candidate.number, chart)
    search.tell(candidate.number, [1.0], {})
    search.close()
    assert loaded(tmp_path).trials[0].value == 1.0


def test_dashboard_is_served_on_loopback_with_its_files(tmp_path: Path) -> None:
    command = dashboard.command("sqlite:///x.db", outputs=tmp_path, port=8081)
    assert command[:3] == [sys.executable, "-m", "sweeper.search.dashboard_server"]
    assert command[3:] == [
        *("sqlite:///x.db", "--artifact-dir", str(tmp_path / "artifacts")),
        *("--host", "127.0.0.1", "--port", "8081"),
    ]


def served(outputs: Path, query: str = "after=0") -> dict[str, Any]:
    """Give what the served dashboard answers about the one study."""
    application = keeping_bounds(wsgi(optuna.storages.get_storage(storage_url(outputs))))
    started: list[str] = []
    environ: dict[str, Any] = {"PATH_INFO": "/api/studies/1", "QUERY_STRING": query}
    setup_testing_defaults(environ)
    body = b"".join(application(environ, lambda status, headers: started.append(status)))
    assert started == ["200 OK"]
    content: dict[str, Any] = json.loads(body)
    return content


def told(outputs: Path, objectives: list[Objective], trials: list[tuple[list[float], float]]) -> None:
    """Tell a search of trials: their values, and how far past its bound each is."""
    bound = Constraint(metric="p99_ttft_ms", limit=2000.0, is_upper=True)
    sizes = Space(domains={"max_num_seqs": Choice(values=tuple(range(1, len(trials) + 1)))})
    search = Search(
        storage=storage_url(outputs),
        name="study",
        space=sizes,
        objectives=objectives,
        constraints=[bound],
        method="grid",
        seed=0,
    )
    for point, (values, past) in zip(sizes.grid(), trials, strict=True):
        search.tell(search.begin(point).number, values, {}, violated={bound.name: past})
    search.close()


def best_numbers(study: dict[str, Any]) -> list[int]:
    return [trial["number"] for trial in study["best_trials"]]


def test_best_trial_of_dashboard_keeps_every_bound(tmp_path: Path) -> None:
    told(tmp_path, [THROUGHPUT], [([9.0], 0.0), ([12.0], 0.04), ([11.0], -0.1), ([13.0], 0.2)])
    assert best_numbers(served(tmp_path)) == [2]
    # A page that is open asks for what is new; the best one is still the best of all.
    later = served(tmp_path, "after=3")
    assert [trial["number"] for trial in later["trials"]] == [3]
    assert best_numbers(later) == [2]


def test_where_no_trial_keeps_bounds_dashboard_has_no_best(tmp_path: Path) -> None:
    told(tmp_path, [THROUGHPUT], [([9.0], 0.5), ([12.0], 0.04)])
    assert best_numbers(served(tmp_path)) == []


def test_best_trials_of_several_objectives_are_front_of_those_that_keep_bounds(
    tmp_path: Path,
) -> None:
    latency = Objective(metric="p99_tpot_ms", direction="minimize")
    trials = [([9.0, 50.0], 0.0), ([12.0, 40.0], 0.3), ([11.0, 60.0], 0.0), ([8.0, 55.0], 0.0)]
    told(tmp_path, [THROUGHPUT, latency], trials)
    # The second beats all and breaks the bound; without it the first and the third beat the fourth or nobody.
    assert best_numbers(served(tmp_path)) == [0, 2]


def test_password_does_not_go_into_list_of_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "postgresql+psycopg://me:planted@host/studies"
    assert cli.main(["dashboard", str(tmp_path), "--storage", url]) == cli.MISTAKE
    said = capsys.readouterr().err
    assert "planted" not in said
    assert "Leave it out, and give it in PGPASSWORD or ~/.pgpass." in said


def test_port_that_is_taken_is_refused_when_asked_for_and_avoided_otherwise() -> None:
    with socket.socket() as taken:
        taken.bind((dashboard.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port: {port} cannot be listened on .* Choose another"):
            dashboard.choose_port(port)
        assert dashboard.choose_port(None) not in (0, port)
    with pytest.raises(ConfigError, match="--port: 99999 cannot be listened on"):
        dashboard.choose_port(99999)

"""The client of a study: found in its environment with its version, or refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper import cli
from sweeper.cli.exit_codes import MISTAKE
from tests.standin_foreign import write_foreign_interpreter
from tests.standin_server import write_interpreter

SMALL = (
    *("+experiment=cpu_smoke", "executor=inline", "platform.devices=1", "client=aiperf"),
    *("space.knobs.max_num_seqs=[8]", "space.knobs.max_num_batched_tokens=[2048]"),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPER_AIPERF_PYTHON", raising=False)
    return tmp_path


def planned(folder: Path, *overrides: str) -> int:
    engine = write_interpreter(folder / "engine")
    return cli.main([*SMALL, f"engine.python={engine}", "plan=true", *overrides])


def test_study_is_planned_with_the_client_of_its_environment(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_foreign_interpreter(here / ".venv-aiperf" / "bin")
    assert planned(here) == cli.OK
    told = capsys.readouterr().out
    assert "study: cpu_smoke-cpu" in told
    assert "devices idle" in told


def test_missing_and_older_clients_are_one_sentence(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(here) == MISTAKE
    told = capsys.readouterr()
    assert "client.kind: is aiperf, and it is not installed" in told.out + told.err
    assert "python -m sweeper install-client aiperf" in told.out + told.err
    old = write_foreign_interpreter(here / "old", aiperf="0.3.0")
    assert planned(here, f"client.python={old}") == MISTAKE
    told = capsys.readouterr()
    assert "has aiperf 0.3.0; expected 0.13.0 or later" in told.out + told.err


def test_nothing_is_looked_for_where_nothing_is_sent(here: Path) -> None:
    assert cli.main([*SMALL, "platform=simulated", "model=llama_3_1_8b", "plan=true"]) == cli.OK


def test_dataset_that_it_is_not_given_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(here, "workload.dataset=sharegpt", "workload.input_len=null") == MISTAKE
    told = capsys.readouterr()
    assert "workload.dataset: is 'sharegpt', which client aiperf is not given here; expected random or" in (
        told.out + told.err
    )

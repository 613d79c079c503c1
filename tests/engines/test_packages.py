"""What only some loads need beside vLLM: looked for before anything starts, told with the command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sweeper.clients import requirements
from sweeper.engines import packages
from sweeper.errors import ConfigError
from sweeper.records import ClientSpec, EngineSpec
from tests.clients.test_sendable import POINTS


def write_python(folder: Path, *, lacks: str) -> str:
    """An interpreter that answers that it lacks packages."""
    folder.mkdir()
    python = folder / "python"
    python.write_text(f"#!/bin/sh\necho {lacks}\n")
    python.chmod(0o755)
    return str(python)


def test_what_an_interpreter_cannot_import_is_found_without_importing() -> None:
    assert packages.missing(sys.executable, ("json", "no_such_package_at_all")) == ("no_such_package_at_all",)


def test_interpreter_that_does_not_run_lacks_nothing_here(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    assert packages.missing(str(broken), ("pandas",)) == ()


def test_package_is_installed_by_pip_where_there_is_one_else_by_uv(tmp_path: Path) -> None:
    python = str(tmp_path / "python")
    assert packages.install_command(python, "pandas") == f"uv pip install --python {python} pandas"
    (tmp_path / "pip").touch()
    assert packages.install_command(python, "pandas") == f"{python} -m pip install pandas"


@pytest.mark.parametrize(("dataset", "package"), [("burstgpt", "pandas"), ("hf", "datasets")])
def test_dataset_is_refused_where_what_reads_it_is_missing(
    tmp_path: Path, dataset: str, package: str
) -> None:
    python = write_python(tmp_path / "bin", lacks=package)
    point = POINTS[dataset]
    engine = EngineSpec(kind="vllm", release="0.32.0", python=python)
    with pytest.raises(
        ConfigError, match=rf"'{dataset}', and the environment of .* has no {package}, .*Inst"
    ):
        requirements.check_vllm_bench(ClientSpec(), [point], engine)
    other = write_python(tmp_path / "client", lacks="nothing")
    # The client's own interpreter is the one that reads it.
    requirements.check_vllm_bench(ClientSpec(python=other), [point], engine)
    requirements.check_vllm_bench(ClientSpec(), [POINTS["random"]], engine)

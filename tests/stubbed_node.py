"""A node of MI300X by its recorded amd-smi, and an interpreter that has vLLM by its metadata."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

RECORDED = Path(__file__).parent / "recorded"
# What the interpreter finds of an id, in place of the hub's client: a file for each id, as its cache has.
_HUB_CLIENT = """
import pathlib
CACHE = pathlib.Path(__file__).parent / "cache"
def try_to_load_from_cache(path, name, revision=None):
    file = CACHE / path.replace("/", "--") / name
    return str(file) if file.exists() else None
def hf_hub_download(path, name, revision=None):
    raise constants.LocalEntryNotFoundError("not in the cache")
class constants:
    HF_HUB_OFFLINE = True
    LocalEntryNotFoundError = type("LocalEntryNotFoundError", (Exception,), {})
"""


def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a node in CPX/NPS4 on the path, and return an interpreter that has vLLM 0.32.0."""
    tools = tmp_path / "tools"
    (tools / "site" / "vllm-0.32.0.dist-info").mkdir(parents=True)
    (tools / "site" / "vllm-0.32.0.dist-info" / "METADATA").write_text("Name: vllm\nVersion: 0.32.0\n")
    (tools / "amd-smi").write_text(
        f"#!{sys.executable}\nimport pathlib, sys\nfolder = "
        f"pathlib.Path({str(RECORDED / 'rocm_6.4_cpx_nps4')!r})\nprint((folder / (sys.argv[1] + "
        "'.json')).read_text(encoding='utf-8'), end='')\n"
    )
    (tools / "python").write_text(f'#!/bin/sh\nPYTHONPATH={tools / "site"} exec {sys.executable} "$@"\n')
    for program in ("amd-smi", "python"):
        (tools / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return str(tools / "python")


def hub_holds(python: str, **models: str) -> None:
    """Give a stubbed interpreter a client of the hub, whose cache has these config.json by id."""
    client = Path(python).parent / "site" / "huggingface_hub"
    client.mkdir(exist_ok=True)
    (client / "__init__.py").write_text(_HUB_CLIENT)
    for name, text in models.items():
        folder = client / "cache" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(text)

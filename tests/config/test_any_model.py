"""Models of other builds than Llama's in a configuration: described by their folder, under its name."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from sweeper import config
from sweeper.config import Settings
from sweeper.models import published
from sweeper.records import Platform

DATA = Path(published.__file__).parent / "data"


def folder_of(place: Path, name: str) -> Path:
    rows = yaml.safe_load((DATA / "published_models.yaml").read_text(encoding="utf-8"))
    folder = place / name.rpartition("/")[2]
    folder.mkdir()
    content = next(row["config"] for row in rows if row["name"] == name)
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def settings(folder: Path, platform: Platform, *named: str) -> Settings:
    words = ["+experiment=tune_serving", f"platform={platform}", f"model.path={folder}", *named]
    return config.settings(config.compose_run(words), platform=platform)


def test_folder_describes_mixture_of_experts(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "Qwen/Qwen3-235B-A22B")
    found = settings(folder, Platform.MI300X, "model.name=my-qwen").model
    assert (found.name, found.shape) == ("my-qwen", None)
    assert found.built is not None
    assert found.built.kv_bytes_per_token() == 192_512


def test_other_build_is_simulated_as_its_folder_describes_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "deepseek-ai/DeepSeek-V3")
    found = settings(folder, Platform.SIMULATED, "model.name=my-deepseek").model
    assert (found.name, found.shape) == ("my-deepseek", None)
    assert found.built is not None
    assert found.built.words == "3 x latent attention, MLP; 58 x latent attention, experts"


def test_another_build_never_carries_name_of_model_before_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "deepseek-ai/DeepSeek-V3")
    found = settings(folder, Platform.MI300X).model
    assert found.name == "DeepSeek-V3"
    assert found.built is not None
    assert found.built.kv_bytes_per_token() == 70_272

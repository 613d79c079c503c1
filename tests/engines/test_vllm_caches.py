"""Which starts share compiled code, and which never do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.engines.vllm_caches import cache_folders
from sweeper.records import Placement, Platform
from tests.standin_server import make_spec

HOME = {"HOME": "/home/me"}
BLOCK = Placement(
    node="n", devices=(4, 5), parents=(4, 5), partition_mode="SPX", memory_mode="NPS1", numa_node=1
)


def folders(
    *,
    release: str = "0.32.0",
    placement: Placement = BLOCK,
    python: str = "/venv/bin/python",
    surroundings: dict[str, str] = HOME,
    assignment: dict[str, int] | None = None,
) -> dict[str, str]:
    spec = make_spec(Path("/outputs"), python, platform=Platform.MI300X, assignment=assignment or {})
    spec = replace(spec, engine=replace(spec.engine, release=release))
    return cache_folders(spec, placement, surroundings=surroundings, python=python)


def test_all_caches_lie_in_one_named_folder_of_users_cache() -> None:
    found = folders()
    assert set(found) == {
        "VLLM_CACHE_ROOT",
        "TORCHINDUCTOR_CACHE_DIR",
        "TRITON_CACHE_DIR",
        "AITER_ROOT_DIR",
    }
    (parent,) = {Path(path).parent for path in found.values()}
    assert parent.parent == Path("/home/me/.cache/mi300x-sweeper")
    assert parent.name.startswith("vllm-0.32.0-mi300x-")


def test_other_settings_and_other_devices_share_it() -> None:
    elsewhere = replace(BLOCK, devices=(0, 1), parents=(0, 1), numa_node=0)
    assert folders() == folders(assignment={"max_num_seqs": 512}) == folders(placement=elsewhere)


@pytest.mark.parametrize(
    "change",
    [
        {"release": "0.31.0"},
        {"python": "/other/bin/python"},
        {"placement": replace(BLOCK, partition_mode="CPX")},
    ],
    ids=["release", "environment", "partition mode"],
)
def test_what_compiles_differently_has_another_folder(change: dict[str, object]) -> None:
    assert not set(folders().values()) & set(folders(**change).values())  # type: ignore[arg-type]


def test_releases_that_spoil_shared_cache_have_one_per_block() -> None:
    # Issue 24601 of vLLM, mended in 0.11.1.
    elsewhere = replace(BLOCK, devices=(0, 1), parents=(0, 1))
    assert folders(release="0.11.0") != folders(release="0.11.0", placement=elsewhere)
    assert folders(release="0.11.1") == folders(release="0.11.1", placement=elsewhere)
    assert "/block-4-5/" in folders(release="0.11.0")["VLLM_CACHE_ROOT"]


def test_folder_that_user_names_stands() -> None:
    found = folders(surroundings={**HOME, "VLLM_CACHE_ROOT": "/mine"})
    assert "VLLM_CACHE_ROOT" not in found
    found = folders(surroundings={**HOME, "XDG_CACHE_HOME": "/scratch"})
    assert found["VLLM_CACHE_ROOT"].startswith("/scratch/mi300x-sweeper/")


def test_only_amds_engines_have_folder_of_aiter() -> None:
    spec = make_spec(Path("/outputs"), "/venv/bin/python", platform=Platform.CUDA)
    found = cache_folders(spec, BLOCK, surroundings=HOME, python="/venv/bin/python")
    assert "AITER_ROOT_DIR" not in found
    # AITER names a kernel by its arguments alone: two releases must not find each other's.
    assert folders()["AITER_ROOT_DIR"] != folders(release="0.31.0")["AITER_ROOT_DIR"]
    assert "AITER_ROOT_DIR" not in folders(surroundings={**HOME, "AITER_ROOT_DIR": "/mine"})


def test_without_home_engine_decides() -> None:
    assert folders(surroundings={}) == {}

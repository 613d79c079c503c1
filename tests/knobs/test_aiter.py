"""AITER's switches, as each release's defaults and the environment make them."""

from __future__ import annotations

import pytest

from sweeper import knobs
from sweeper.knobs.aiter import MASTER, default_at
from sweeper.knobs.history import endings, run_at, variables

ON = {MASTER: "1"}


def test_release_without_aiter_has_no_switches() -> None:
    assert knobs.aiter_switches("0.6.2", ON) is None


def test_aiter_is_off_unless_said_and_no_sub_switch_acts_then() -> None:
    switches = knobs.aiter_switches("0.32.0", {"VLLM_ROCM_USE_AITER_MHA": "1"})
    assert switches is not None
    assert (switches.is_on, switches.on) == (False, ())


def test_sub_switches_follow_release_and_environment() -> None:
    # vLLM 0.32.0, envs.py: what is True by default below VLLM_ROCM_USE_AITER.
    usual = ("CUSTOM_AR", "FP4BMM", "FP8BMM", "LINEAR", "MHA", "MLA", "MOE", "RMSNORM", "TRITON_GEMM")
    told = knobs.aiter_switches("0.32.0", ON)
    assert told is not None
    assert told.on == usual
    changed = {**ON, "VLLM_ROCM_USE_AITER_MHA": "0", "VLLM_ROCM_USE_AITER_UNIFIED_ATTENTION": "True"}
    told = knobs.aiter_switches("0.32.0", changed)
    assert told is not None
    assert set(told.on) == {*usual, "UNIFIED_ATTENTION"} - {"MHA"}
    first = knobs.aiter_switches("0.8.2", ON)
    assert first is not None
    assert first.on == ("RMSNORM",)


def test_history_of_every_switch_can_be_read() -> None:
    unset = {"VLLM_ROCM_USE_AITER_MOE_A4W4_DSV4": "unset", "VLLM_ROCM_USE_AITER_MOE_SITUV2": "auto"}
    for name in (name for name in variables() if name.startswith(MASTER)):
        for release in filter(lambda release, name=name: run_at(name, release), knobs.releases()):
            default = default_at(endings()[name]["default_history"], release)
            assert default == unset.get(name, default)
            assert default in ("0", "1", unset.get(name)), (name, release)


@pytest.mark.parametrize(
    ("history", "release", "default"),
    [
        ("0", "0.11.1", "0"),
        ("1 through 0.32.0; 0 in 0.33.0", "0.32.0", "1"),
        ("1 through 0.32.0; 0 in 0.33.0", "0.33.0", "0"),
        ("1 in 0.11.1-0.11.2; 0 from 0.12.0", "0.11.2", "1"),
        ("1 in 0.11.1-0.11.2; 0 from 0.12.0", "0.30.0", "0"),
        ("1 in 0.11.1-0.11.2", "0.30.0", ""),
    ],
)
def test_default_of_a_release_is_read_from_its_history(history: str, release: str, default: str) -> None:
    assert default_at(history, release) == default

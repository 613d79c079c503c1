"""What passes the check although the tables do not know it."""

from __future__ import annotations

import pytest

from sweeper import knobs
from sweeper.errors import KnobError
from sweeper.records import Scalar
from tests.knobs.asking import only_refusal, words


def test_forked_build_may_have_what_tables_do_not() -> None:
    fork: dict[str, Scalar] = {"num_scheduler_steps": 8, "amd_special_flag": 3, "kv_cache_dtype": "fp6"}
    assert {refusal.kind for refusal in knobs.check(fork, release="0.32.0")} == {
        "removed",
        "unknown",
        "bad_value",
    }
    assert not knobs.check(fork, release="0.32.0", allow_unknown=True)
    assert words({"amd_special_flag": 3}, "0.32.0") == "--amd-special-flag 3"
    with pytest.raises(KnobError, match="its default there is not known"):
        knobs.command_line({"amd_special_flag": False}, release="0.32.0")


def test_forms_that_came_later_may_be_what_fork_has() -> None:
    later: dict[str, Scalar] = {"compilation_config": '{"mode": 3}'}
    assert "its key 'mode' came with vLLM 0.11.1" in only_refusal(later, "0.11.0").reason
    assert not knobs.check(later, release="0.11.0", allow_unknown=True)
    broken: dict[str, Scalar] = {"compilation_config": "{"}
    assert "it is not JSON" in only_refusal(broken, "0.11.0", allow_unknown=True).reason


def test_flags_of_other_engines_pass_and_simulated_one_is_held_to_vllm() -> None:
    tgi: dict[str, Scalar] = {"num_shard": 8}
    assert not knobs.check(tgi, release="2.3.1", engine="tgi")
    assert only_refusal(tgi, "0.6.2", engine="simulated").kind == "unknown"


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"port": 8000, "VLLM_PORT": 1, "no_such_knob": 1, "block_size": 16},
        {"num_scheduler_steps": 8, "enable_chunked_prefill": True, "max_num_seqs": "many"},
        {"VLLM_USE_V1": 0, "enable_prefix_caching": True, "num_scheduler_steps": 4},
    ],
)
@pytest.mark.parametrize("release", ["0.6.2", "0.8.5", "0.32.0"])
def test_conflicts_alone_are_those_among_all_refusals(asked: dict[str, Scalar], release: str) -> None:
    for assignment in (asked, {**knobs.defaults(release), **asked}):
        every = knobs.check(assignment, release=release)
        alone = knobs.check_conflicts(assignment, release=release)
        assert alone == tuple(refusal for refusal in every if refusal.kind == "conflict")
    assert len(alone) >= 2 * ("port" in asked)

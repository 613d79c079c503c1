"""The exception tree, and the hint that ends a message."""

from __future__ import annotations

import pytest

from sweeper.errors import EngineError, MeasurementError, SweeperError, first_line, nearest, nearest_name
from sweeper.records import FailureClass


def test_misspelt_name_is_answered_with_nearest_known_one() -> None:
    assert nearest("max_num_seq", ["max_num_seqs", "block_size"]) == " Did you mean 'max_num_seqs'?"


def test_name_like_no_other_gets_no_hint() -> None:
    assert nearest("zzz", ["max_num_seqs", "block_size"]) == ""


def test_measurement_error_is_caught_as_failure_of_trial() -> None:
    with pytest.raises(EngineError) as caught:
        raise MeasurementError("not ours", failure=FailureClass.WRONG_ENGINE, log_path="a.log")
    assert caught.value.failure is FailureClass.WRONG_ENGINE
    assert caught.value.log_path == "a.log"
    assert isinstance(caught.value, SweeperError)


MODELS = ("llama_3_1_8b", "llama_3_1_8b_instruct", "llama_3_1_70b_instruct", "llama_3_1_70b_instruct_fp8")


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("llama-3.1-70b", MODELS, "llama_3_1_70b_instruct"),  # the same numbers, and no more than it
        ("llama_3_1_8b_instruct_fp8", MODELS, "llama_3_1_8b_instruct"),
        ("Llama-3.1-8B", MODELS, "llama_3_1_8b"),
        ("mi300", ("mi300x", "cpu"), "mi300x"),
        ("gpu", ("auto", "cpu", "cuda", "mi300x", "simulated"), None),  # one letter off, another thing
        ("cudaa", ("auto", "cpu", "cuda"), "cuda"),
        ("max_num_seq", ("max_num_seqs", "max_model_len"), "max_num_seqs"),
        ("wrk", ("vllm_bench", "offline", "locust"), None),
    ],
)
def test_nearest_name_is_of_same_thing(name: str, known: tuple[str, ...], meant: str | None) -> None:
    assert nearest_name(name, known) == meant


@pytest.mark.parametrize(
    ("error", "quoted"),
    [
        (ValueError("it is closed.\nSee the log."), "it is closed"),
        (ValueError("it is closed"), "it is closed"),
        (ValueError(" \n "), "ValueError"),
        (ValueError("..."), "ValueError"),
    ],
)
def test_what_is_quoted_of_an_error_amid_a_sentence_has_no_full_stop(error: Exception, quoted: str) -> None:
    assert first_line(error) == quoted

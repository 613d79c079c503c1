"""The exception tree, and the hint that ends a message."""

from __future__ import annotations

import pytest

from sweeper.errors import EngineError, MeasurementError, SweeperError, nearest
from sweeper.records import FailureClass


def test_a_misspelt_name_is_answered_with_the_nearest_known_one() -> None:
    assert nearest("max_num_seq", ["max_num_seqs", "block_size"]) == " Did you mean 'max_num_seqs'?"


def test_a_name_like_no_other_gets_no_hint() -> None:
    assert nearest("zzz", ["max_num_seqs", "block_size"]) == ""


def test_a_measurement_error_is_caught_as_the_failure_of_a_trial() -> None:
    with pytest.raises(EngineError) as caught:
        raise MeasurementError("not ours", failure=FailureClass.WRONG_ENGINE, log_path="a.log")
    assert caught.value.failure is FailureClass.WRONG_ENGINE
    assert caught.value.log_path == "a.log"
    assert isinstance(caught.value, SweeperError)

"""Text as a person can read it."""

from __future__ import annotations

import pytest

from sweeper.text.printable import legible, shortened, whole


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("max_num_seqs=64, a\\b", "max_num_seqs=64, a\\b"),
        ("\x1b[31mred\a", "\\x1b[31mred\\x07"),
        ("two\nlines\tand\x7f", "two\\nlines\\tand\\x7f"),
        ("half \ud83d a character", "half \\ud83d a character"),
        ("turned \u202eround\u2066", "turned \\u202eround\\u2066"),
        ("a\u2028b\ufeff", "a\\u2028b\\ufeff"),
        ("模型, Ünïcödé, 🚀", "模型, Ünïcödé, 🚀"),
        ("\U0001f469\u200d\U0001f4bb", "\U0001f469\u200d\U0001f4bb"),
    ],
)
def test_what_has_no_sign_of_its_own_is_shown_by_its_code(text: str, shown: str) -> None:
    assert legible(text) == shown
    legible(text).encode("utf-8")


def test_half_characters_are_shown_by_their_codes_wherever_they_are() -> None:
    assert whole({"\ud83d": ["a\udc80", 1, None]}) == {"\\ud83d": ["a\\udc80", 1, None]}


def test_newline_may_be_kept() -> None:
    assert legible("a\nb\r", keep="\n") == "a\nb\\r"


def test_long_text_keeps_both_its_ends() -> None:
    text = "NCCL_MIN_NCHANNELS=112, " * 20 + "num_scheduler_steps=13"
    short = shortened(text, 60)
    assert len(short) <= 60
    assert short.startswith("NCCL_MIN_NCHANNELS=112, ")
    assert short.endswith("scheduler_steps=13")
    assert shortened("short", 60) == "short"

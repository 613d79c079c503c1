"""Text as a person can read it: what has no sign of its own is shown by its code.

Labels, questions, model names and an engine's last words come from people and programs. A control character
among them moves a terminal's cursor, a mark of direction turns a line round, half a character (a lone
surrogate) cannot be written at all. Here each becomes visible as Python writes it, such as ``\\x1b``, so that
nothing is lost and nothing acts.
"""

from __future__ import annotations

import unicodedata
from typing import Any

LINES = "\n\t"
"""Control characters that a message may have."""

# Joiners shape words and emoji; they neither act nor mislead. Marks of direction, of the same class, do.
_JOINERS = "\u200c\u200d"
_UNSEEN = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")


def legible(text: object, *, keep: str = "") -> str:
    """Show what cannot be seen by its code; ``keep`` are control characters that stay, such as a newline."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(sign if _is_seen(sign) or sign in keep else escape(sign) for sign in shown)


def escape(sign: str) -> str:
    """Write one character by its code, as Python does: ``\\n``, ``\\x1b``, ``\\u202e``, ``\\U0001f680``."""
    return sign.encode("unicode_escape").decode("ascii") if sign != "\\" else sign


def whole(value: Any) -> Any:
    """Show half characters in texts, lists and objects by their codes: no file or table can hold them."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {whole(key): whole(item) for key, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, list) else value


def shortened(text: str, most: int) -> str:
    """Leave out the middle of a long text: settings differ at their ends more often than in the middle."""
    if len(text) <= most:
        return text
    head = (most - 5) * 2 // 3
    return f"{text[:head].rstrip()} ... {text[len(text) - (most - 5 - head) :].lstrip()}"


def _is_seen(sign: str) -> bool:
    return sign in _JOINERS or sign.isprintable() or unicodedata.category(sign) not in _UNSEEN

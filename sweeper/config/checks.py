"""Checks of single values; every refusal names key, value, what was expected and what to do."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sweeper import knobs
from sweeper.errors import ConfigError, nearest
from sweeper.records import Scalar, magnitudes
from sweeper.text import confidential

MOST_STARTS = 10_000
"""Engine starts, or runs on one start, of a single setting."""

MOST_TRIALS = 1_000_000
"""Trials of a search."""

_Number = TypeVar("_Number", int, float)

LARGEST_WHOLE = 2**63 - 1
"""Whole numbers are stored in 64 bits."""


def nonempty(key: str, values: list[Any]) -> list[Any]:
    """Refuse an empty list."""
    if not values:
        raise ConfigError(f"{key}: is an empty list; expected at least one value.")
    return values


def scalar(key: str, value: Any) -> Scalar:
    """Refuse what cannot be a knob's value: null, lists, and mappings where the flag takes no JSON.

    Returns:
        The value. A mapping becomes JSON with its keys in order, so that one object is one value however it
        is written; a text is kept as it is, for the keys of stored trials hold it.
    """
    if isinstance(value, str):
        _refuse_given_secret(key, value)
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        check_whole(key, value)
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{key}: is {value}; expected a finite number.")
        return value
    if isinstance(value, Mapping) and knobs.takes_json(key.rpartition(".")[2]):
        # Once there and back: JSON's keys are texts, and only those have an order.
        text = json.dumps(json.loads(json.dumps(value)), sort_keys=True)
        _refuse_given_secret(key, text)
        return text
    kind = "null" if value is None else type(value).__name__
    raise ConfigError(f"{key}: is {kind}; expected a number, a text, true or false. Quote JSON as a text.")


def _refuse_given_secret(key: str, value: str) -> None:
    if confidential.gives_secret(value):
        raise ConfigError(
            f"{key}: holds what looks like a secret, and knobs are kept with the results; expected none. "
            "Export it as an environment variable, which engines are given, or put it into a file of theirs."
        )


def check_no_secret_text(key: str, content: Any) -> None:
    """Refuse a secret anywhere in a part of the configuration: all of it is kept with the results.

    The URL of the search's database may hold its password, which is masked wherever that is kept.
    """
    for where, value in _leaves(key, content):
        if isinstance(value, str) and where != "study.storage" and confidential.is_secret(value):
            raise ConfigError(
                f"{where}: holds what looks like a secret, and the configuration is kept with the results; "
                "expected none. Leave it out: what a program needs reaches it by environment variables."
            )


def check_whole(key: str, value: int) -> None:
    """Refuse a whole number that no column of a result can hold."""
    if abs(value) > LARGEST_WHOLE:
        # A number of thousands of digits cannot even be printed.
        raise ConfigError(
            f"{key}: is a whole number of {value.bit_length()} bits; expected one between "
            f"-{LARGEST_WHOLE} and {LARGEST_WHOLE}. Correct it."
        )


def check_whole_numbers(key: str, content: Any) -> None:
    """Refuse such a number anywhere in a part of the configuration; the message names its key."""
    for where, value in _leaves(key, content):
        if isinstance(value, int):
            check_whole(where, value)


def _leaves(key: str, content: Any) -> Iterator[tuple[str, Any]]:
    """Yield each single value of a part of the configuration with its dotted key."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _leaves(f"{key}.{name}" if key else str(name), value)
    elif isinstance(content, list | tuple):
        for place, value in enumerate(content):
            yield from _leaves(f"{key}[{place}]", value)
    else:
        yield key, content


def check_no_secret(key: str, name: str) -> None:
    """Refuse a knob that would be a secret: knobs appear in every row. Its value is not shown."""
    if confidential.holds_secret(name):
        raise ConfigError(
            f"{key}: '{name}' is the name of a secret, and knobs are kept with the results; expected none. "
            f"Export it as an environment variable ({name.upper()}=...): engines are given the sweeper's own."
        )


def check_choice(key: str, value: Any, known: Sequence[str]) -> None:
    """Refuse a value that is not one of the known ones."""
    if value not in known:
        raise ConfigError(
            f"{key}: '{value}' is not allowed; expected one of {', '.join(known)}."
            f"{nearest(str(value), known)}"
        )


def check_positive(key: str, value: float) -> None:
    """Refuse zero and below, what is no number, and what nobody can mean."""
    if not 0 < value < math.inf:
        raise ConfigError(f"{key}: is {value}; expected a number above 0.")
    if not magnitudes.is_meant(value):
        raise ConfigError(
            f"{key}: is {value:g}; expected one from {magnitudes.SMALLEST:g} to {magnitudes.LARGEST:g}. "
            "Correct it."
        )


def check_count(key: str, value: int, *, most: int) -> int:
    """Refuse a count below 1, and one too large to be meant: it would be counted out before it is noticed."""
    check_positive(key, value)
    if value > most:
        raise ConfigError(f"{key}: is {value:,}; expected at most {most:,}. Lower it.")
    return value


def check_not_negative(key: str, value: _Number) -> _Number:
    """Refuse what is below zero, what is no number, and what nobody can mean."""
    if not 0 <= value < math.inf:
        raise ConfigError(f"{key}: is {value}; expected 0 or more.")
    if value != 0:
        check_positive(key, value)
    return value

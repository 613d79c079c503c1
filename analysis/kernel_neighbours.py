"""Settings whose knobs differ in one, and the kernels that differ between them besides.

Settings that agree in all but one knob form a group of that knob. Within a group only those are paired whose
kernels differ, so that thousands of settings with the same kernels cost no more than a look at each.
"""

from __future__ import annotations

import bisect
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

WORDS: Mapping[str, str] = {
    "kernel_attention": "attention",
    "kernel_attention_prefill": "attention, prefill",
    "kernel_moe": "experts",
    "kernel_linear": "quantized matrices",
    "kernel_all_reduce": "all-reduce",
    "kernel_graphs": "graphs",
    "kernel_compile": "compilation",
    "kernel_aiter": "AITER",
    "kernel_aiter_switches": "AITER's switches",
    "kernel_aiter_modules": "AITER's modules",
    "kernel_untuned_shapes": "untuned shapes",
    "kernel_kv_scales_missing": "KV scales missing",
}
"""What tables call the columns, in their order."""

UNKNOWN = "not told"
"""What tables say of a kernel that an engine did not tell."""

_ALIKE = ("engine_release", "model", "platform")
_KNOB = "knob."

_Kernels = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting as far as it is compared.

    Attributes:
        name: Its label.
        values: Of its knobs, by column, and of what else has to be alike; as text.
        kernels: What ran, as text, in the order of ``WORDS``.
    """

    name: str
    values: Mapping[str, str]
    kernels: _Kernels


class Neighbours:
    """Pairs of settings that differ in one knob."""

    def __init__(self, settings: Sequence[Setting]) -> None:
        """Take settings in their order; all have the same knobs."""
        self._settings = settings

    @classmethod
    def of(cls, trials: pd.DataFrame) -> Neighbours:
        """Return those among rows of a study, one for each setting, with ``setting``."""
        rows = trials.drop_duplicates("trial_key")
        named = [name for name in rows.columns if name in _ALIKE or name.startswith(_KNOB)]
        kept = rows[[name for name in rows.columns if name in (*named, *WORDS, "setting")]]
        return cls(
            [
                Setting(
                    name=str(row["setting"]),
                    values={name: _value(row[name]) for name in named},
                    kernels=tuple(text(row.get(column)) for column in WORDS),
                )
                for row in kept.to_dict("records")
            ]
        )

    def differences(self) -> Iterator[dict[str, str]]:
        """Yield each kernel that differs between two of them, in the order of the first, then of the second.

        Yields:
            ``knob``, ``one``, ``other`` (its values), ``kernel``, ``first``, ``second`` (what ran with each)
            and ``settings`` (both by name).
        """
        for place, one in enumerate(self._settings):
            beside = [self._beside(place, knob) for knob in self._groups]
            for at, knob in heapq.merge(*beside):
                other = self._settings[at]
                for words, first, second in _differing(one.kernels, other.kernels):
                    yield {
                        "knob": knob.removeprefix(_KNOB),
                        "one": one.values[knob],
                        "other": other.values[knob],
                        "kernel": words,
                        "first": first,
                        "second": second,
                        "settings": f"{one.name} and {other.name}",
                    }

    def count(self) -> int:
        """Return how many ``differences`` there are, without making them."""
        return sum(
            self._count(members, knob)
            for knob, groups in self._groups.items()
            for members in groups.values()
            if len(members) > 1
        )

    def _count(self, members: Sequence[int], knob: str) -> int:
        """Count those of a group: pairs of two values and two kernels, of each kind of kernel."""
        found = 0
        for kind in range(len(WORDS)):
            told = [
                (setting.kernels[kind], setting.values[knob])
                for setting in (self._settings[at] for at in members)
                if setting.kernels[kind] != UNKNOWN
            ]
            found += _pairs([len(told)]) + _pairs(Counter(told).values())
            found -= _pairs(Counter(kernel for kernel, _ in told).values())
            found -= _pairs(Counter(value for _, value in told).values())
        return found

    def _beside(self, place: int, knob: str) -> Iterator[tuple[int, str]]:
        """Yield the later settings that differ from one in this knob alone and ran other kernels."""
        one = self._settings[place]
        ran = self._ran[knob, _rest(one, knob)]
        later = [
            places[bisect.bisect_right(places, place) :]
            for kernels, places in ran.items()
            if places[-1] > place and any(_differing(one.kernels, kernels))
        ]
        for at in heapq.merge(*later):
            if self._settings[at].values[knob] != one.values[knob]:
                yield at, knob

    @cached_property
    def _groups(self) -> Mapping[str, Mapping[_Kernels, list[int]]]:
        """Places of the settings that agree in all but one knob, by that knob and by the others' values."""
        knobs = (
            [name for name in self._settings[0].values if name.startswith(_KNOB)] if self._settings else []
        )
        found: dict[str, dict[_Kernels, list[int]]] = {knob: {} for knob in knobs}
        for place, setting in enumerate(self._settings):
            for knob, groups in found.items():
                groups.setdefault(_rest(setting, knob), []).append(place)
        return found

    @cached_property
    def _ran(self) -> Mapping[tuple[str, _Kernels], Mapping[_Kernels, list[int]]]:
        """Places of a group by the kernels that ran."""
        found: dict[tuple[str, _Kernels], dict[_Kernels, list[int]]] = {}
        for knob, groups in self._groups.items():
            for rest, places in groups.items():
                ran = found.setdefault((knob, rest), {})
                for place in places:
                    ran.setdefault(self._settings[place].kernels, []).append(place)
        return found


def differing(one: pd.Series, other: pd.Series) -> list[tuple[str, str, str]]:
    """Return the kernels that differ between two rows, in words, with what ran in each; told of both only."""
    return list(_differing(*([text(row.get(column)) for column in WORDS] for row in (one, other))))


def text(value: Any) -> str:
    """Write what a row holds of a kernel, as it stands in tables."""
    if value is None or pd.isna(value):
        return UNKNOWN
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}"
    return str(value) or "none"


def _differing(ones: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for words, first, second in zip(WORDS.values(), ones, others, strict=True):
        if UNKNOWN not in (first, second) and first != second:
            yield words, first, second


def _pairs(sizes: Iterable[int]) -> int:
    return sum(size * (size - 1) // 2 for size in sizes)


def _rest(setting: Setting, knob: str) -> _Kernels:
    return tuple(value for name, value in setting.values.items() if name != knob)


def _value(value: Any) -> str:
    """Write a knob's value, which of a number is all of its digits."""
    if value is None or pd.isna(value):
        return "unset"
    if isinstance(value, float) and not value.is_integer():
        return repr(float(value))
    return text(value)

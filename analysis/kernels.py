"""Which kernels ran, what differs between settings that were to differ in one knob only, and advice.

A difference of two settings is that of the knob only where nothing else differs, and engines choose kernels
by themselves: a longer context or more sequences may bring another one. Where no kernel was told, as of a
model or in rows of before kernels were stored, nothing is said.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis import kernel_advice, tables
from analysis.markdown import escaped
from analysis.study import Study

PREFIX = "kernel_"

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

_MOST_PAIRS = 12
_UNKNOWN = "not told"


def section(study: Study) -> str:
    """Return the report's section on kernels; nothing where no engine told of any."""
    told = _by_setting(study)
    if not told:
        return ""
    parts = ["## Kernels", _shared(told), _table(told), _pairs_text(study), _advice(study)]
    return "\n\n".join(part for part in parts if part)


def pairs(study: Study) -> pd.DataFrame:
    """List the kernels that differ between settings whose knobs differ in one.

    Returns:
        Columns ``knob``, ``one``, ``other`` (its values), ``kernel``, ``first``, ``second`` (what ran with
        each) and ``settings`` (both by name); a row for each difference.
    """
    rows = [
        {**_knob_row(knob, one, other), "kernel": words, "first": first, "second": second}
        for knob, one, other in _neighbours(study)
        for words, first, second in differing(one, other)
    ]
    columns = ["knob", "one", "other", "kernel", "first", "second", "settings"]
    return pd.DataFrame(rows, columns=columns)


def differing(one: pd.Series, other: pd.Series) -> list[tuple[str, str, str]]:
    """Return the kernels that differ between two rows, in words, with what ran in each; told of both only."""
    found = []
    for column, words in WORDS.items():
        first, second = text(one.get(column)), text(other.get(column))
        if _UNKNOWN not in (first, second) and first != second:
            found.append((words, first, second))
    return found


def between(ones: Mapping[str, pd.Series], others: Mapping[str, pd.Series]) -> pd.DataFrame:
    """List the kernels that differ between settings of two studies that are the same by their keys.

    Returns:
        Columns ``setting``, ``kernel``, ``first``, ``second``; what one side did not tell is left out.
    """
    rows = [
        {"setting": one["setting"], "kernel": words, "first": first, "second": second}
        for key, one in ones.items()
        if key in others
        for words, first, second in differing(one, others[key])
    ]
    found = pd.DataFrame(rows, columns=["setting", "kernel", "first", "second"])
    return found.sort_values(["kernel", "setting"], ignore_index=True)


def text(value: Any) -> str:
    """Write what a row holds of a kernel, as it stands in tables."""
    if value is None or pd.isna(value):
        return _UNKNOWN
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}"
    return str(value) or "none"


def trials(study: Study) -> pd.DataFrame:
    """Return a row for each setting of which a kernel is told, the newest, with ``setting``."""
    rows = tables.settings(study.frame, study.series)
    known = [column for column in WORDS if column in rows.columns]
    if not known:
        return rows.iloc[:0]
    return rows[rows[known].notna().any(axis="columns")].drop_duplicates("setting")


def _by_setting(study: Study) -> dict[str, dict[str, str]]:
    told = trials(study)
    return {
        str(row["setting"]): {words: text(row.get(column)) for column, words in WORDS.items()}
        for row in told[[name for name in told.columns if name == "setting" or name in WORDS]].to_dict(
            "records"
        )
    }


def _varying(told: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [words for words in WORDS.values() if len({kernels[words] for kernels in told.values()}) > 1]


def _shared(told: Mapping[str, Mapping[str, str]]) -> str:
    """Return what every setting ran alike, in a line."""
    varying, first = _varying(told), next(iter(told.values()))
    alike = [f"{words} {escaped(first[words])}" for words in first if words not in varying]
    listed = "; ".join(item for item in alike if not item.endswith(_UNKNOWN))
    return f"The same in every setting, as the engine's log has it: {listed}." if listed else ""


def _table(told: Mapping[str, Mapping[str, str]]) -> str:
    varying = _varying(told)
    if not varying:
        return ""
    shown = [
        {"setting": name, **{words: kernels[words] for words in varying}} for name, kernels in told.items()
    ]
    return tables.to_markdown(pd.DataFrame(shown), is_text=True)


def _pairs_text(study: Study) -> str:
    found = pairs(study)
    if found.empty:
        return ""
    shown = found.head(_MOST_PAIRS)[["settings", "kernel", "first", "second"]]
    more = len(found) - _MOST_PAIRS
    return (
        "### More than the knob differs\n\nThese settings differ in one knob, and their engines ran other "
        "kernels: a difference in their numbers is that of both, unless the knob chooses the kernel.\n\n"
        + tables.to_markdown(shown, is_text=True)
        + (f"\n\n{more} more are in the data." if more > 0 else "")
    )


def _neighbours(study: Study) -> Iterator[tuple[str, pd.Series, pd.Series]]:
    """Yield the pairs of settings, of one release and model, that differ in one knob, with that knob."""
    frame = trials(study).drop_duplicates("trial_key")
    rows = [row for _, row in frame.iterrows()]
    knobs = [column for column in frame.columns if column.startswith("knob.")]
    same = ("engine_release", "model", "platform")
    written = [{name: text(row[name]) for name in (*same, *knobs)} for row in rows]
    # Rows that agree in all but one knob stand in one group of it, so that few pairs are looked at.
    found = []
    for knob in knobs:
        groups: dict[tuple[str, ...], list[int]] = {}
        for place, values in enumerate(written):
            rest = tuple(value for name, value in values.items() if name != knob)
            groups.setdefault(rest, []).append(place)
        for places in groups.values():
            found += [
                (one, other, knob)
                for one, other in itertools.combinations(places, 2)
                if written[one][knob] != written[other][knob]
            ]
    for one, other, knob in sorted(found):
        yield knob, rows[one], rows[other]


def _knob_row(knob: str, one: pd.Series, other: pd.Series) -> dict[str, str]:
    name = knob.removeprefix("knob.")
    return {
        "knob": name,
        "one": _value(one[knob]),
        "other": _value(other[knob]),
        "settings": f"{one['setting']} and {other['setting']}",
    }


def _value(value: Any) -> str:
    return "unset" if value is None or pd.isna(value) else text(value)


def _advice(study: Study) -> str:
    lines: Sequence[str] = kernel_advice.lines(trials(study))
    if not lines:
        return ""
    head = (
        "### Advice\n\nBy rule, from what the engines told. Nothing of it is acted on, and none of it was "
        "measured here."
    )
    return "\n".join([head, "", *lines])

"""Which kernels ran, what differs between settings that were to differ in one knob only, and advice.

A difference of two settings is that of the knob only where nothing else differs, and engines choose kernels
by themselves: a longer context or more sequences may bring another one. Where no kernel was told, as of a
model or in rows of before kernels were stored, nothing is said.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pandas as pd

from analysis import kernel_advice, tables
from analysis.kernel_neighbours import UNKNOWN, WORDS, Neighbours, differing, text
from analysis.markdown import escaped
from analysis.study import Study

_MOST_PAIRS = 12


def section(study: Study) -> str:
    """Return the report's section on kernels; nothing where no engine told of any."""
    told = _by_setting(study)
    if not told:
        return ""
    parts = ["## Kernels", _shared(told), _table(told), _pairs_text(study), _advice(study)]
    return "\n\n".join(part for part in parts if part)


def pairs(study: Study, *, most: int | None = None) -> pd.DataFrame:
    """List the kernels that differ between settings, of one release and model, whose knobs differ in one.

    Args:
        study: Whose settings.
        most: So many rows at most, the first ones; None is all. Of n settings there may be n squared.

    Returns:
        Columns ``knob``, ``one``, ``other`` (its values), ``kernel``, ``first``, ``second`` (what ran with
        each) and ``settings`` (both by name); a row for each difference.
    """
    neighbours = Neighbours.of(trials(study))
    rows = itertools.islice(neighbours.differences(), most)
    columns = ["knob", "one", "other", "kernel", "first", "second", "settings"]
    return pd.DataFrame(rows, columns=columns)


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
    listed = "; ".join(item for item in alike if not item.endswith(UNKNOWN))
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
    found = pairs(study, most=_MOST_PAIRS)
    if found.empty:
        return ""
    shown = found[["settings", "kernel", "first", "second"]]
    more = Neighbours.of(trials(study)).count() - _MOST_PAIRS
    return (
        "### More than the knob differs\n\nThese settings differ in one knob, and their engines ran other "
        "kernels: a difference in their numbers is that of both, unless the knob chooses the kernel.\n\n"
        + tables.to_markdown(shown, is_text=True)
        + (f"\n\n{more} more are in the data." if more > 0 else "")
    )


def _advice(study: Study) -> str:
    lines: Sequence[str] = kernel_advice.lines(trials(study))
    if not lines:
        return ""
    head = (
        "### Advice\n\nBy rule, from what the engines told. Nothing of it is acted on, and none of it was "
        "measured here."
    )
    return "\n".join([head, "", *lines])

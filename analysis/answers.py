"""Whether a fast setting still answers as the baseline does: the greedy answer of each, held against its.

A cache of eight bits has started, answered every request and been fast, while the answers were worth nothing
(vLLM issue 45562: 0.967 of GSM8K became 0.010). One short answer is no evaluation, but a broken one shows.

The *baseline* is the series ``default`` where the study has one, else its first setting; each model has its
own. A verdict says how a setting's answer stands to the baseline's:

* ``same``: word for word;
* ``different``: another text, and a knob that differs may change an answer (``sweeper.knobs.numerics``);
* ``unexplained``: another text, though no knob that differs is known to change one;
* ``broken``: no words, or one token again and again, where the baseline's is a text. A broken setting is
  never the best one.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from analysis.records import records
from sweeper import knobs
from sweeper.records import TrialState

BASELINE_SERIES = "default"
MEANING: Mapping[str, str] = {
    "baseline": "what the others are compared with",
    "same": "word for word",
    "different": "another text, as it may be",
    "unexplained": "another text, and no knob that differs is known to change one",
    "broken": "no text, where the baseline gives one",
}

_MODEL = ["model", "model_revision"]
# What else may change an answer, besides knobs.
_OTHERS = {
    "engine": "another engine",
    "version.vllm": "another release",
    "version.sglang": "another release",
    "version.torch": "another PyTorch",
    "platform": "another machine",
    "model_dtype": "other weights",
}
# The shortest unit that makes up the whole text, four times or more: one token, repeated.
_REPEATED = re.compile(r"(.{1,12}?)\1{3,}", re.DOTALL)


def is_broken(text: str) -> bool:
    """Return whether an answer is no text: without a letter or digit, unprintable, or one token repeated."""
    plain = text.strip()
    if not any(letter.isalnum() for letter in plain):
        return True
    if "\ufffd" in plain or any(not (letter.isprintable() or letter.isspace()) for letter in plain):
        return True
    words = plain.split()
    is_one_word = len(words) >= 3 and len(set(words)) == 1
    return is_one_word or _REPEATED.fullmatch("".join(words)) is not None


def verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """Judge the answer of every setting that was measured and could be asked.

    Args:
        rows: What ``tables.settings`` gave.

    Returns:
        Columns ``setting``, ``sanity_verdict``, ``sanity_text``, ``why``; a row per setting, in their order.
    """
    columns = ["setting", "sanity_verdict", "sanity_text", "why"]
    if "sanity_text" not in rows.columns:
        return pd.DataFrame(columns=columns)
    is_asked = (rows["state"] == str(TrialState.COMPLETE)) & rows["sanity_text"].notna()
    # Only what is compared column by column is copied whole: a table of the store has two hundred columns.
    asked = rows.loc[is_asked, ["setting"]].drop_duplicates("setting")
    judged: dict[str, dict[str, str]] = {}
    for _, group in rows.loc[asked.index].groupby(_MODEL, sort=False, dropna=False):
        judged |= {answer["setting"]: answer for answer in _judged(group)}
    ordered = [judged[setting] for setting in dict.fromkeys(rows["setting"]) if setting in judged]
    return pd.DataFrame(ordered, columns=columns)


def broken(rows: pd.DataFrame) -> frozenset[str]:
    """Name the settings whose answers are broken."""
    if "sanity_text" not in rows.columns or rows["sanity_text"].nunique() < 2:
        # An answer is broken beside another one.
        return frozenset()
    judged = verdicts(rows)
    return frozenset(judged.loc[judged["sanity_verdict"] == "broken", "setting"])


def _judged(group: pd.DataFrame) -> list[dict[str, str]]:
    default = group[group["series"].eq(BASELINE_SERIES)]
    (baseline,) = (group if default.empty else default).head(1).to_dict("records")
    # Only rows that are compared column by column are read whole: a table of the store has two hundred.
    is_other = group["sanity_text"].ne(baseline["sanity_text"]).to_numpy(dtype=bool)
    others = iter(records(group[is_other]))
    alike = iter(records(group.loc[~is_other, ["setting", "sanity_text"]]))
    rows = [next(others if other else alike) for other in is_other]
    return [
        {"setting": str(row["setting"]), "sanity_text": str(row["sanity_text"]), **_verdict(row, baseline)}
        for row in rows
    ]


def _verdict(row: Mapping[Hashable, Any], baseline: Mapping[Hashable, Any]) -> dict[str, str]:
    if row["setting"] == baseline["setting"]:
        return {"sanity_verdict": "baseline", "why": ""}
    if row["sanity_text"] == baseline["sanity_text"]:
        return {"sanity_verdict": "same", "why": ""}
    if is_broken(str(row["sanity_text"])) and not is_broken(str(baseline["sanity_text"])):
        return {"sanity_verdict": "broken", "why": ""}
    reasons = _reasons(row, baseline)
    return {"sanity_verdict": "different" if reasons else "unexplained", "why": "; ".join(reasons)}


def _reasons(row: Mapping[Hashable, Any], baseline: Mapping[Hashable, Any]) -> list[str]:
    """Name which differences between two settings may change an answer."""
    differing = [str(name) for name in row if not _is_equal(row[name], baseline.get(name))]
    asked = [name.removeprefix("knob.") for name in differing if name.startswith("knob.")]
    told = [name.removeprefix("effective.") for name in differing if name.startswith("effective.")]
    reasons = [
        f"{knob}: {why}"
        for knob in dict.fromkeys([*asked, *told])
        if (why := knobs.why_answers_may_change(knob)) is not None
    ]
    return reasons + [f"{name}: {why}" for name, why in _OTHERS.items() if name in differing]


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) or hasattr(one, "tolist"):
        return True
    return bool(pd.isna(one) and pd.isna(other)) or bool(
        not pd.isna(one) and not pd.isna(other) and one == other
    )

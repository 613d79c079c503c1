"""Where the numbers of a study come from, in sentences of Markdown: machine or model, trials, source."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
from pathlib import PurePath
from typing import Any

import pandas as pd

from analysis import shared_starts
from analysis.markdown import escaped
from analysis.study import Study
from sweeper import published
from sweeper.records.plurals import amount, percent
from sweeper.text.expected import told_once

_MOST_LOADS = 3


def provenance_sentence(study: Study) -> str:
    """Describe in plain words where the numbers come from."""
    frame = study.frame
    if study.is_simulated:
        return (
            "**Simulated: no GPU was measured.** Every number is computed by a model of vLLM and its machine."
            + _calibration_sentences(frame)
        )
    nodes = ", ".join(sorted(set(frame["node"].dropna()))) or "an unknown node"
    weights = " Weights are random: only speed means anything." if bool(frame["model_is_dummy"].any()) else ""
    return f"**Measured** on {nodes} ({', '.join(sorted(set(frame['platform'])))}).{weights}"


def _calibration_sentences(frame: pd.DataFrame) -> str:
    """Name the calibration and its expected error; rows of before these were stored name neither."""
    told = frame[["calibration_name", "expected_error"]].dropna().drop_duplicates()
    words = "".join(
        f" Calibration `{name}`; expected mean error: {error.replace('unknown: ', 'unknown, for it was ')}."
        for name, errors in told.groupby("calibration_name", sort=False)["expected_error"]
        for error in told_once([str(error) for error in errors])
    )
    near = [text for text in frame["calibration_nearness"].dropna().unique() if text != "the same stack"]
    words += "".join(f" It is of another stack: {text}." for text in near)
    return words + _interval_sentence(frame)


_WITH_INTERVALS = {
    "output_throughput_tok_per_s": "throughput",
    "mean_ttft_ms": "TTFT",
    "mean_tpot_ms": "TPOT",
    "mean_batch_latency_ms": "latency",
}
"""One metric of each kind whose errors are alike, and the kind."""


def _interval_sentence(frame: pd.DataFrame) -> str:
    """Say within what share of each other four of five unseen numbers and their predictions lay, at most."""
    widest: dict[str, float] = {}
    for text in frame["interval_80"].dropna().unique():
        for metric, (low, high) in json.loads(text).items():
            words = _WITH_INTERVALS.get(metric)
            if words is not None and low > 0:
                widest[words] = max(widest.get(words, 1.0), math.sqrt(high / low))
    if not widest:
        return ""
    told = ", ".join(f"{words} within {percent(wide - 1)}" for words, wide in widest.items())
    return f" Of published numbers of this kind that were not seen, four of five lay so near: {told}."


def origin(study: Study) -> str:
    """Return how many trials there are, and where the question comes from, as a list in Markdown."""
    trials = study.frame.drop_duplicates("trial_key")
    states = trials["state"].value_counts()
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    lines = [f"- Study: `{study.name}`, {amount(len(trials), 'trial')} ({counts})"]
    shared = shared_starts.sentence(study.frame)
    if shared is not None:
        lines.append(f"- {escaped(shared)}")
    lines.append(f"- Load: {_load_text(study.frame)}")
    if study.experiment:
        lines.append(f"- Experiment: `{study.experiment}`")
    if study.counterpart_of:
        changes = "; ".join(f"{knob}: {became}" for knob, became in study.changes.items())
        lines.append(
            f"- Stands in for `{study.counterpart_of}`, some of whose knobs this vLLM lacks: "
            f"{escaped(changes)}"
        )
    if study.source:
        lines.append(f"- Source: {escaped(study.source)}")
    lines += _left_out(study)
    return "\n".join(lines)


def _load_text(frame: pd.DataFrame) -> str:
    """Say which model was asked what, where the question is of any model and any load."""
    models = ", ".join(str(name) for name in frame["model"].dropna().unique()) or "no model"
    rows = frame.drop_duplicates(["dataset", "num_prompts", "input_len", "output_len"])
    asked = [_requests_text(row) for row in rows.to_dict("records")]
    more = f" and {len(asked) - _MOST_LOADS} more" if len(asked) > _MOST_LOADS else ""
    return escaped(f"{models}; {'; '.join(asked[:_MOST_LOADS])}{more}")


def _requests_text(row: Mapping[Hashable, Any]) -> str:
    path = row["dataset_path"]
    file = f" of {PurePath(path).name}" if isinstance(path, str) else ""
    lengths = [
        f"{int(row[column])} tokens {words}"
        for column, words in (("input_len", "in"), ("output_len", "out"))
        if not pd.isna(row[column])
    ]
    return f"{row['dataset']}{file}: {', '.join([amount(int(row['num_prompts']), 'prompt', ','), *lengths])}"


def _left_out(study: Study) -> list[str]:
    """Say so when published figures stay out of the charts because they are of another model."""
    wanted = {series.published for series in study.series.values()} - {None}
    theirs = published.load(study.experiment)
    others = set(theirs.loc[theirs["series"].isin(wanted), "model"])
    ours = set(study.frame["model"])
    foreign = sorted(other for other in others if not any(published.is_same_model(other, m) for m in ours))
    return (
        [f"- Published figures are of {', '.join(foreign)} and left out: they do not compare"]
        if foreign
        else []
    )

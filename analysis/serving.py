"""What to paste into a shell to serve with a setting that was measured or modelled.

A model is served from its address, the hub id or folder that the engine was given; the name in the results
is its label, which goes into ``--served-model-name`` where it differs. Of an endpoint that others
started no line is written: how it was started is not known, and ours would not be what was measured.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.container_lines import in_image, inner
from analysis.tables import Row, release_of
from sweeper import knobs
from sweeper.errors import ConfigError
from sweeper.kinds import ENGINES
from sweeper.records import Scalar
from sweeper.records.plurals import listed

READ = (
    *("engine", "engine_build", "engine_release", "version.vllm", "image", "command"),
    *("model", "model_path", "model_revision", "model_is_dummy"),
)
"""Columns of a row that ``line_of_row`` reads, besides those of knobs."""

_ADDRESSES = ("--model", "--model-id", "serve")
# Where an engine listened for us, which is no port for production.
_OUR_PORT = ("--hostname", "--host", "--port")


def serve_line(frame: pd.DataFrame, trial_key: str) -> str:
    """Return the line that serves with a trial's setting.

    Args:
        frame: Rows of the store.
        trial_key: A trial in them.

    Returns:
        The line for the release of vLLM that was measured or modelled, on vLLM's usual port; where it was
        measured in a container image, the whole command of the container's runtime. Of another engine, and
        where that release cannot say a value, the command that was run; empty if there was none.
    """
    return line_of_row(_row(frame, trial_key))


def line_of_row(row: Row) -> str:
    """Return what ``serve_line`` does, of a row of the trial."""
    ran = _text(row, "command")
    kind = ENGINES.get(str(row["engine"]))
    if kind is not None and not kind.is_started_by_us:
        return ""
    image = _text(row, "image")
    if image and kind is not None and kind.takes_vllm_flags and _text(row, "version.vllm"):
        return in_image(_line_of(row, _assignment(row), release=release_of(row)), ran=ran, image=image)
    if kind is not None and not kind.takes_vllm_flags:
        within = inner(ran, image=image) if image else ran
        return in_image(_command_line(within, _assignment(row)), ran=ran, image=image)
    if not _text(row, "version.vllm"):
        return ran
    try:
        return _line_of(row, _assignment(row), release=release_of(row))
    except ConfigError:
        return ran


@dataclass(frozen=True, kw_only=True)
class Today:
    """What stands beside a line that the newest release would refuse.

    Attributes:
        about: For which releases the line is, and what the newest one makes of it, which was not measured.
        line: The line for the newest release; empty where it cannot take what is left.
    """

    about: str
    line: str


def today(frame: pd.DataFrame, trial_key: str) -> Today | None:
    """Return the line for the newest release; None where that takes the line of the trial as it is."""
    until = valid_until(frame, trial_key)
    if not until:
        return None
    row, newest = _row(frame, trial_key), knobs.releases()[-1]
    found = knobs.translated(_assignment(row), release=newest)
    changes = "; ".join(found.changes)
    refused = knobs.check(found.assignment, release=newest)
    if refused:
        about = f"vLLM {newest} has no counterpart of it ({changes}): {refused[0].message}"
        return Today(about=f"{until} {about}", line="")
    about = f"Nearest to it for vLLM {newest}, which was not measured: {changes}."
    return Today(about=f"{until} {about}", line=_line_of(row, found.assignment, release=newest))


def _line_of(row: Row, assignment: Mapping[str, Scalar], *, release: str) -> str:
    address = _address(row)
    return knobs.serve_line(
        assignment,
        release=release,
        model=address,
        served_name=str(row["model"]),
        revision=None if _is_local(address) else _text(row, "model_revision") or None,
        has_dummy_weights=bool(row["model_is_dummy"]) and _is_local(address),
    )


def why_no_line(frame: pd.DataFrame, trial_key: str) -> str:
    """Return a sentence on what was measured where there is no line to serve with, else nothing."""
    row = _row(frame, trial_key)
    kind = ENGINES.get(str(row["engine"]))
    if kind is None or kind.is_started_by_us:
        return ""
    release = _text(row, "version.vllm")
    served = f"{row['model']} by vLLM {release}" if release else str(row["model"])
    return (
        f"Measured at an endpoint that already ran and serves {served}: its own start command is what to "
        "keep. What it reported of its settings stands in the columns effective.*."
    )


def valid_until(frame: pd.DataFrame, trial_key: str) -> str:
    """Return a sentence on the last release that takes the line, where a newer one lacks a flag of it."""
    row = _row(frame, trial_key)
    kind = ENGINES.get(str(row["engine"]))
    has_line_of_vllm = kind is not None and kind.takes_vllm_flags and kind.is_started_by_us
    if not has_line_of_vllm or not _text(row, "version.vllm"):
        return ""
    last, gone = knobs.since_removed(_assignment(row), release=release_of(row))
    if not last:
        return ""
    return (
        f"This line is for vLLM {release_of(row)} and valid up to {last}: newer releases lack {listed(gone)}."
    )


def _row(frame: pd.DataFrame, trial_key: str) -> Row:
    row: Row = frame[frame["trial_key"] == trial_key].iloc[0].to_dict()
    return row


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    return "" if value is None or pd.isna(value) else str(value)


def _assignment(row: Row) -> dict[str, Scalar]:
    return {
        str(name).removeprefix("knob."): _plain(value)
        for name, value in row.items()
        if str(name).startswith("knob.") and not pd.isna(value)
    }


def _plain(value: Any) -> Scalar:
    """Take a value out of numpy and pandas."""
    plain: Scalar = value.item() if isinstance(value, np.generic) else value
    return plain


def _address(row: Row) -> str:
    """Return what the engine was given; rows from before it was stored show it in their command, if any."""
    words = shlex.split(_text(row, "command"))
    ran = [after for word, after in itertools.pairwise(words) if word in _ADDRESSES]
    return _text(row, "model_path") or next(iter(ran), "") or str(row["model"])


def _is_local(address: str) -> bool:
    """Whether an address is a folder: its revision is then a hash of its content, which no hub knows."""
    return address.startswith(("/", ".", "~")) or Path(address).is_dir()


def _command_line(ran: str, assignment: Mapping[str, Scalar]) -> str:
    """Return a command that ran with its variables, for the shell that starts it, without our own port."""
    words = iter(shlex.split(ran))
    kept = []
    for word in words:
        if word in _OUR_PORT:
            next(words, None)
        else:
            kept.append(word)
    if not kept:
        return ""
    variables = [
        f"{name}={shlex.quote(str(int(value)) if isinstance(value, bool) else str(value))}"
        for name, value in sorted(assignment.items())
        if knobs.is_variable(name)
    ]
    return " ".join([*variables, shlex.join(kept)])

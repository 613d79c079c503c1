"""The leaderboard for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from analysis.leaderboard import Entry, Leaderboard
from sweeper.text.output import json_answer


def as_json(board: Leaderboard) -> str:
    """Return the leaderboard as JSON: objectives, bounds, and every setting in order.

    Numbers are in the units of docs/columns.md; what is not known is null. ``changes`` are shares of the
    value of ``baseline``.
    """
    content = {
        "provenance": "simulated" if board.is_simulated else "measured",
        "objectives": [objective.name for objective in board.objectives],
        "bounds": [constraint.name for constraint in board.constraints],
        "baseline": board.baseline,
        "currency": board.currency,
        "same": dict(board.same),
        "settings": [_setting(board, entry) for entry in board.entries],
    }
    return json_answer(content)


def _setting(board: Leaderboard, entry: Entry) -> dict[str, Any]:
    objectives = [objective.name for objective in board.objectives]
    return {
        "place": entry.place,
        "setting": entry.setting,
        "trial": entry.trial_key,
        "knobs": dict(entry.knobs),
        "values": {
            name: None if value is None else asdict(value)
            for name, value in zip(objectives, entry.values, strict=True)
        },
        "changes": dict(zip(objectives, entry.changes, strict=True)),
        "beside": {quantity.name: value for quantity, value in zip(board.beside, entry.beside, strict=True)},
        "keeps_bounds": not entry.breaches,
        "breaks": [
            {"bound": breach.constraint.name, "value": breach.value, "text": breach.text}
            for breach in entry.breaches
        ],
        "is_tied": entry.is_tied,
        "overrides": entry.overrides,
        "gpus": entry.gpus,
        "cost_per_million_output_tokens": entry.cost,
        "completed_per_s": entry.completed_per_s,
        "why_none": entry.why_none,
    }

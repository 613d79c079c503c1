"""The leaderboard for people: as lines within a width for a terminal or a log, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import pandas as pd

from analysis import bests, columns_text, tables
from analysis.columns_text import Column
from analysis.leaderboard import Entry, Leaderboard, quantity_title
from analysis.markdown import escaped
from sweeper.records import MAX_RATE, MAX_USERS, SEARCH_SLOS, Constraint, Objective
from sweeper.records.goal import load_text
from sweeper.records.plurals import amount, percent
from sweeper.text.numbers import number_text

TOP = 10
"""How many settings are shown unless all are asked for."""

_NUMBER = "#"
_MOST_OF_FRONT = 20
_SHORT = {
    "tensor_parallel_size": "TP",
    "pipeline_parallel_size": "PP",
    "data_parallel_size": "DP",
    "enable_expert_parallel": "EP",
}
"""Abbreviations that serving engines use themselves, such as vLLM's ``-tp`` and ``-dp``."""


def lines(board: Leaderboard, *, width: int, is_all: bool = False, all_command: str = "") -> list[str]:
    """Return the leaderboard as lines.

    Args:
        board: What is shown.
        width: Of a line, in characters.
        is_all: Every setting, not the first ten alone.
        all_command: The command that shows every setting, to be named where some are left out.
    """
    shown = _shown(board, is_all=is_all)
    told = [_counts(board, shown), *facts(board)]
    if len(shown) < len(board.entries) and all_command:
        told.append(f"all settings: {all_command}")
    groups = [_results(board, shown), _knob_columns(board, shown)]
    kept = [[column for column in group if not column.is_empty] for group in groups]
    table = columns_text.lines([group for group in kept if group], width=width)
    return [*_wrapped(told, width), "", *table, "", *_wrapped(notes(board, shown), width)]


def markdown(board: Leaderboard, *, is_all: bool = False) -> str:
    """Return the leaderboard as Markdown: what all have in common, the table, and what its marks mean."""
    shown = _shown(board, is_all=is_all)
    columns = [*_results(board, shown), *_knob_columns(board, shown)]
    table = pd.DataFrame({column.head: list(column.cells) for column in columns if not column.is_empty})
    told = [*(_counts(board, shown), *facts(board)), *notes(board, shown)]
    return tables.to_markdown(table) + "\n\n" + "\n".join(f"- {escaped(line)}" for line in told)


def facts(board: Leaderboard) -> list[str]:
    """Return what holds for the whole table: what it is ordered by, against what, and what all share."""
    found = [f"ordered by: {_order_text(board)}"]
    if board.constraints:
        found.append(f"bounds: {', '.join(constraint.name for constraint in board.constraints)}")
    if board.baseline is not None:
        found.append(f"change: against {_baseline_text(board)}")
    held = {entry.gpus for entry in board.entries if entry.gpus is not None}
    same = [f"{name}={value}" for name, value in board.same.items()]
    same += [amount(held.pop(), "GPU", "g")] if len(held) == 1 else []
    return [*found, *([f"equal for all: {', '.join(same)}"] if same else [])]


def notes(board: Leaderboard, shown: Sequence[Entry]) -> list[str]:
    """Return what the marks of the shown rows mean."""
    found = []
    if any(entry.is_tied for entry in shown):
        ties = _ties(board)
        found.append(
            f"=: the same number as the row above. {ties} settings share the best number; "
            "row 1 is recommended, which has the fewest overrides."
            if ties > 1
            else "=: the same number as the row above; of equal settings the one with the fewest overrides "
            "stands first."
        )
    if any(entry.breaches for entry in shown):
        unknown = any(one.value is None for entry in shown for one in entry.breaches)
        found.append(
            "!: breaks a bound, by the share that is shown, so it has no place and is never the best."
            + (" Where a bound has no number, it is not known to be kept." if unknown else "")
        )
    starts = {value.n for entry in shown for value in entry.values if value is not None}
    if starts == {1}:
        found.append("One engine start each, so no interval: repeat before relying on a small difference.")
    elif starts:
        found.append("±: half of the 95 % interval over engine starts.")
    return found


def _shown(board: Leaderboard, *, is_all: bool) -> list[Entry]:
    if is_all:
        return list(board.entries)
    with_numbers = [entry for entry in board.entries if entry.values[0] is not None]
    first = sum(entry.place == 1 for entry in with_numbers) if board.is_front else 0
    shown = (with_numbers or list(board.entries))[: max(TOP, min(first, _MOST_OF_FRONT))]
    # What the others are held against is always to be seen.
    return shown + [entry for entry in with_numbers if entry.setting == board.baseline and entry not in shown]


def _counts(board: Leaderboard, shown: Sequence[Entry]) -> str:
    numbers = sum(entry.values[0] is not None for entry in board.entries)
    kept = sum(entry.place is not None for entry in board.entries)
    is_further = len(shown) > 1 and board.number(shown[-1].setting) > len(shown)
    first = len(shown) - is_further
    which = "all" if len(shown) == len(board.entries) else f"the first {first}"
    origin = "simulated" if board.is_simulated else "measured"
    bounds = f", {kept} {'keeps' if kept == 1 else 'keep'} every bound" if board.constraints else ""
    return (
        f"leaderboard ({origin}): {which} of {amount(len(board.entries), 'setting')}; {numbers} "
        f"{'has' if numbers == 1 else 'have'} numbers{bounds}{_others(board)}"
    )


def _others(board: Leaderboard) -> str:
    """Count the settings without numbers by why they have none."""
    why = [entry.why_none for entry in board.entries if entry.why_none]
    return "".join(f", {why.count(reason)} {reason}" for reason in dict.fromkeys(why))


def _order_text(board: Leaderboard) -> str:
    names = [f"{_direction(one)} {one.name}" for one in board.objectives]
    if not board.is_front:
        return names[0]
    return f"Pareto front of {', '.join(names)}; front 1: no other setting beats it in every objective"


def _direction(objective: Objective) -> str:
    return "highest" if objective.is_higher_better else "lowest"


def _baseline_text(board: Leaderboard) -> str:
    assert board.baseline is not None
    entry = board.entry(board.baseline)
    row = f"row {board.number(board.baseline)}"
    if board.is_default:
        return f"{row}, the default"
    return f"{row}, with the fewest overrides ({entry.overrides}): the default itself was not measured"


def _ties(board: Leaderboard) -> int:
    return sum(entry.place == 1 for entry in board.entries) if not board.is_front else 0


# ---- columns ----


def _results(board: Leaderboard, shown: Sequence[Entry]) -> list[Column]:
    def column(head: str, cell: Callable[[Entry], str]) -> Column:
        return Column(head=head, cells=tuple(cell(entry) for entry in shown))

    found = [column(_NUMBER, lambda entry: _number_text(board, entry))]
    if board.is_front:
        found.append(column("front", lambda entry: "" if entry.place is None else str(entry.place)))
    for position, objective in enumerate(board.objectives):
        found += _objective_columns(board, shown, position, objective)
    loads = {_load_of(one) for one in (*board.objectives, *board.beside)}
    for place, quantity in enumerate(board.beside):
        found.append(
            column(
                _head(quantity, has_load=len(loads) > 1),
                lambda entry, place=place, quantity=quantity: _beside_text(entry, place, quantity),  # type: ignore[misc]
            )
        )
    if len({entry.gpus for entry in board.entries if entry.gpus is not None}) > 1:
        found.append(column("GPUs", lambda entry: "" if entry.gpus is None else f"{entry.gpus:g}"))
    currency = f" ({board.currency})" if board.currency else ""
    return [
        *found,
        column(f"cost per million output tokens{currency}", lambda entry: _number_or_empty(entry.cost)),
    ]


def _objective_columns(
    board: Leaderboard, shown: Sequence[Entry], position: int, objective: Objective
) -> list[Column]:
    loads = {_load_of(one) for one in (*board.objectives, *board.beside)}
    head = _head(objective, has_load=len(loads) > 1)
    completed = [_number_or_empty(entry.completed_per_s) for entry in shown]
    found = []
    if objective.metric in SEARCH_SLOS:
        found.append(Column(head="completed per second", cells=tuple(completed)))
        head = {MAX_RATE: "offered per second", MAX_USERS: "users"}[objective.metric]
    values = tuple(_value_cell(entry, position, objective) for entry in shown)
    changes = tuple(change_text(board, entry, position) for entry in shown)
    return [*found, Column(head=head, cells=values), Column(head="change", cells=changes)]


def _knob_columns(board: Leaderboard, shown: Sequence[Entry]) -> list[Column]:
    found = []
    for name in board.knobs:
        cells = tuple(entry.knobs[name] for entry in shown)
        is_number = all(_is_number(cell) for cell in cells)
        found.append(Column(head=_SHORT.get(name, name), cells=cells, is_number=is_number))
    return found


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).lstrip("-").isdigit() or text == "default"


def _number_text(board: Leaderboard, entry: Entry) -> str:
    number = board.number(entry.setting)
    above = board.entries[number - 2] if number > 1 else None
    is_equal = entry.is_tied and above is not None and above.place == entry.place
    return f"{number}{'!' if entry.breaches else '=' if is_equal else ''}"


def _head(quantity: Objective | Constraint, *, has_load: bool) -> str:
    limit = (
        f" {'<=' if quantity.is_upper else '>='} {quantity.limit:g}"
        if isinstance(quantity, Constraint)
        else ""
    )
    load = f" {_load_of(quantity)}" if has_load and _load_of(quantity) else ""
    return f"{quantity_title(quantity)}{load}{limit}"


def _load_of(quantity: Objective | Constraint) -> str:
    return load_text(request_rate_per_s=quantity.request_rate_per_s, max_concurrency=quantity.max_concurrency)


def _value_cell(entry: Entry, position: int, objective: Objective) -> str:
    value = entry.values[position]
    if value is None:
        return entry.why_none if position == 0 else ""
    spread = "" if value.low is None or value.high is None else (value.high - value.low) / 2
    text = tables.metric_text(value.mean, objective.metric)
    return text if spread == "" else f"{text} ± {number_text(float(spread))}"


def change_text(board: Leaderboard, entry: Entry, position: int) -> str:
    """Write how much an objective of a setting changes against the baseline's; empty where none is known."""
    if entry.setting == board.baseline and entry.values[position] is not None:
        return "default" if board.is_default else "0 %"
    change = entry.changes[position]
    if change is None:
        return ""
    return percent(change, "+.1") if abs(change) < 0.1 else percent(change, "+,.0")


def _beside_text(entry: Entry, place: int, quantity: Objective | Constraint) -> str:
    value = entry.beside[place]
    broken = [breach for breach in entry.breaches if breach.constraint == quantity]
    if broken and broken[0].value is not None:
        return f"{number_text(broken[0].value)} {_past_text(broken[0])}"
    return _number_or_empty(value)


def _past_text(breach: bests.Breach) -> str:
    if not breach.constraint.limit:
        return "!"
    sign = "+" if breach.constraint.is_upper else "-"
    share = percent(breach.past) if breach.past >= 0.02 else percent(breach.past, ".1")
    return f"{sign}{share}!"


def _number_or_empty(value: float | None) -> str:
    return "" if value is None else number_text(value)


def _wrapped(told: Sequence[str], width: int) -> list[str]:
    return [
        line
        for text in told
        for line in textwrap.wrap(
            text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    ]

"""The report's section on the best settings: which, how sure, what serves with it, and who else there is.

Settings of a search are shown as a leaderboard, and named by their row of it everywhere below; settings that
somebody named keep their names.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from analysis import bests, kept_up, leaderboard, leaderboard_text, load_names, serving, standings, tables
from analysis.leaderboard import Leaderboard
from analysis.markdown import code_block, escaped
from analysis.study import Study
from sweeper.records import MAX_RATE, MAX_USERS

_TOUCHES = {
    "tie": "another setting has exactly the same number",
    "clear": "the 95 % intervals of the two lie apart",
    "inconclusive": "the 95 % intervals of the two touch",
    "single start": "started once, so there is no interval: repeat it before relying on a small difference",
    "alone": "there is no other setting with all of its numbers",
}


def section(study: Study) -> str:
    """Return the report's section on the best settings, with the leaderboard of a search."""
    found = standings.best(study)
    board = leaderboard.leaderboard(study) if leaderboard.is_search(study) else None
    if found.empty:
        why = " ".join(f"{escaped(line[0].upper() + line[1:])}." for line in standings.no_best_lines(study))
        return "\n\n".join(["## Best setting", why, *ranking(study)])
    parts = ["## Best setting"]
    for answer in found.to_dict("records"):
        runner_up = (
            ""
            if answer["runner_up"] is None
            else f"; next is {escaped(_row_namer(board)(answer['runner_up']))} with "
            f"{tables.metric_text(answer['runner_up_value'], standings.metric_of(answer))}"
        )
        verdict = f"{answer['verdict']}: {_TOUCHES[answer['verdict']]}"
        ties = standings.ties_text(answer, name=_row_namer(board))
        parts.append(
            f"**{escaped(answer['setting'])}** has the {answer['objective']}: "
            f"{standings.value_text(study, answer)} (n={answer['n']}){runner_up}. Verdict: {verdict}."
            + (f" {escaped(ties[0].upper() + ties[1:])}." if ties else "")
        )
        parts.append(_command(study.frame, str(answer["trial_key"])))
    parts += [f"**{escaped(line)}**" for line in kept_up.lines(study)]
    parts += ranking(study)
    return "\n\n".join(part for part in parts if part)


def ranking(study: Study) -> list[str]:
    """Return who else there is: a search's leaderboard, else the front and what breaks a bound."""
    if leaderboard.is_search(study):
        # It has the front and the bounds in columns of its own.
        return ["### Leaderboard", leaderboard_text.markdown(leaderboard.leaderboard(study))]
    return [*_front(study), *_bounds(study)]


def _row_namer(board: Leaderboard | None) -> Callable[[str], str]:
    """Return what names a setting: its row of the leaderboard, where there is one."""
    return str if board is None else board.row_name


def all_settings(study: Study) -> str:
    """Return the section with every setting of a search; nothing where the leaderboard leaves none out."""
    if not leaderboard.is_search(study):
        return ""
    board = leaderboard.leaderboard(study)
    if len(board.entries) <= leaderboard_text.TOP:
        return ""
    return f"## All settings\n\n{leaderboard_text.markdown(board, is_all=True)}"


def _front(study: Study) -> list[str]:
    """Show what can be had at once, where there are several objectives."""
    if len(study.objectives) < 2:
        return []
    found = standings.front(study)
    return [
        "### Pareto front",
        tables.to_markdown(found.drop(columns="trial_key")),
        "Settings that no other one is at least as good as in every objective and better in one, by their "
        "means" + (", among those that keep every bound." if study.constraints else "."),
    ]


def _bounds(study: Study) -> list[str]:
    """Name which settings the bounds leave out, and why each."""
    if not study.constraints:
        return []
    kept = ", ".join(f"`{constraint.name}`" for constraint in study.constraints)
    broken = bests.broken_bounds(
        study.frame, constraints=study.constraints, series=study.series, finals=study.every_row
    )
    if broken.empty:
        return ["### Bounds", f"Every setting with numbers keeps {kept}."]
    return [
        "### Bounds",
        f"Only settings that keep {kept} can be the best. These do not:",
        tables.to_markdown(broken, is_text=True),
    ]


def _command(frame: pd.DataFrame, trial_key: str) -> str:
    line, why = serving.serve_line(frame, trial_key), serving.why_no_line(frame, trial_key)
    today = serving.today(frame, trial_key)
    ran = frame.loc[frame["trial_key"] == trial_key, "command"].dropna()
    parts = [f"To serve with it:\n\n{code_block(line)}"] if line else [escaped(why)] if why else []
    if today is not None:
        parts += [escaped(today.about), *([code_block(today.line)] if today.line else [])]
    if not ran.empty and ran.iloc[0] != line:
        parts.append(f"As it was run:\n\n{code_block(ran.iloc[0])}")
    return "\n\n".join(parts)


def table_of(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Lay a chart's table out for reading, with the bounds that a setting breaks where any breaks one.

    Settings of a search are named by their row of the leaderboard, which has their knobs and what they
    break; only the first are here, and the chart's CSV has all.
    """
    if leaderboard.is_search(study):
        return _by_row(leaderboard.leaderboard(study), table)
    layout = tables.by_load_point(table, cell=_cell_with_completed)
    broken = dict(zip(table["setting"], table["breaks"], strict=True))
    if any(broken.values()):
        layout["breaks"] = [broken[name] for name in layout["setting"]]
    return layout


def _by_row(board: Leaderboard, table: pd.DataFrame) -> pd.DataFrame:
    first = [entry.setting for entry in board.entries[: leaderboard_text.TOP]]
    mine = table[table["setting"].isin(first)]
    layout = tables.by_load_point(mine, cell=_cell_with_completed)
    numbers = layout["setting"].map({name: place for place, name in enumerate(first, start=1)})
    ordered = layout.assign(setting=numbers).sort_values("setting")
    return ordered.rename(columns={"setting": "row"}).astype({"row": str})


def _cell_with_completed(row: tables.Row) -> str:
    completed = row["completed_per_s"]
    metric = MAX_USERS if row["load_point"] == load_names.MOST_USERS else MAX_RATE
    more = "" if math.isnan(completed) else f", {standings.completed_text(metric, completed)}"
    return " ".join(filter(None, (f"{tables.cell_text(row)}{more}", tables.predicted_text(row))))

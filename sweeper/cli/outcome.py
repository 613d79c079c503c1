"""What is shown after a sweep: its counts, tables, charts and report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeper.cli.analysis import analysis_command
from sweeper.cli.dashboard import show_on_dashboard
from sweeper.cli.exit_codes import NOTHING_COMPLETE, OK, SOME_FAILED, STOPPED
from sweeper.errors import AnswerError, StoreError
from sweeper.records import Platform, TrialResult, TrialState
from sweeper.records.plurals import amount
from sweeper.text.printable import legible
from sweeper.text.reasons import folded, reason_text

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.leaderboard import Leaderboard
    from analysis.study import Study
    from sweeper.config import Settings
    from sweeper.sweep.sweep import Outcome

_SHOWN_SETTINGS = 12
_LEAST_NAME = 24
# What a table draws about its cells: a line at its left, and a line and two blanks with each column.
_BORDER = 1
_PADDING = 3


def conclude(settings: Settings, outcome: Outcome, signalled: int | None, console: Console) -> int:
    """Describe how a sweep ended, and write and show its report.

    Args:
        settings: The study's settings.
        outcome: What became of it.
        signalled: Number of the signal that stopped it, or None.
        console: Where a person reads.

    Returns:
        The exit code.
    """
    if signalled is not None:
        console.print(
            "stopped. What is finished is kept; the same command goes on from here.",
            markup=False,
            soft_wrap=True,
        )
    if outcome.states.get(TrialState.COMPLETE, 0):
        _report(settings, console)
    elif settings.constraints and outcome.states.get(TrialState.SKIPPED, 0):
        _say_no_best(settings, console)
    _count_up(outcome, console)
    if signalled is None:
        console.print(f"ended: {outcome.ended_by}", markup=False, soft_wrap=True)
    return code_of(outcome.states) if signalled is None else STOPPED + signalled


def code_of(states: Mapping[TrialState, int]) -> int:
    """Return the exit code of a study with nothing left to run, by the final states of its trials."""
    if not states.get(TrialState.COMPLETE, 0):
        return NOTHING_COMPLETE
    return SOME_FAILED if states.get(TrialState.FAILED, 0) else OK


def _count_up(outcome: Outcome, console: Console) -> None:
    counted = ", ".join(f"{count} {state}" for state, count in sorted(outcome.states.items()))
    console.print(f"trials: {counted or 'none'}; started now: {outcome.measured_now}", markup=False)
    for text in folded(map(_failure_texts, outcome.failures)):
        console.print(f"  {legible(text)}", markup=False, soft_wrap=True)
    # What is transient was tried again already, and the same command tries it once more.
    if any(one.state is TrialState.FAILED and not _is_transient(one) for one in outcome.failures):
        console.print(
            "  The same command leaves what failed as it is; once the cause is mended, retry_failed=true "
            "runs it again.",
            markup=False,
            soft_wrap=True,
        )


def _is_transient(result: TrialResult) -> bool:
    return result.failure_class is not None and result.failure_class.is_transient


def _failure_texts(result: TrialResult) -> tuple[str, str]:
    """Return why a trial has no numbers, and the same with its log."""
    log = f" (log: {result.log_path})" if result.log_path else ""
    # Of what was never started, that it cannot run here matters more than the class of the reason.
    is_refused = result.state is TrialState.INFEASIBLE
    kind = result.state if is_refused else result.failure_class or result.state
    reason = reason_text(kind, result.failure_message)
    return reason, reason + log


def _report(settings: Settings, console: Console) -> None:
    from analysis import report
    from analysis.study import Study
    from sweeper.store.store import Store

    # Read once for all: what stands best is worked out once for each study that was read.
    study = Study.load(settings.folder)
    files = None
    try:
        files = report.write_of(study)
    except AnswerError as exc:
        # The study is complete all the same: its report can be written again at any time.
        console.print(
            f"report: not written: {legible(exc)} Then write it with: {analysis_command()} report "
            f"{shlex.quote(str(settings.folder))}",
            markup=False,
            soft_wrap=True,
        )
    answers = _show_summary(settings, study, console)
    try:
        show_on_dashboard(settings, study, files.figures if files else (), answers=answers)
    except StoreError as exc:
        console.print(f"dashboard: not brought up to date: {legible(exc)}", markup=False, soft_wrap=True)
    if files is not None:
        console.print("charts:", markup=False)
        for path in files.figures:
            console.print(f"  {path}", markup=False, soft_wrap=True)
        console.print(f"report: {files.report}", markup=False, soft_wrap=True)
        console.print(f"page:   {files.page}", markup=False, soft_wrap=True)
    data = Store(settings.folder, settings.results).measurements
    console.print(f"data:   {data}", markup=False, soft_wrap=True)
    if settings.platform is Platform.SIMULATED:
        console.print("No GPU was measured: these numbers are simulated.", style="bold")


def _say_no_best(settings: Settings, console: Console) -> None:
    """Explain why there is no best setting where every trial was stopped early for a bound."""
    from analysis import standings
    from analysis.study import Study

    for line in standings.best_lines(Study.load(settings.folder)):
        console.print(f"best: {legible(line)}", markup=False, soft_wrap=True)


def _show_summary(settings: Settings, study: Study, console: Console) -> list[str]:
    """Print what was reached, the best setting, and the line that puts it into production.

    Returns:
        The best by each objective, a sentence each.
    """
    from analysis import costs, kept_up, leaderboard, serving, standings, verdicts

    is_search = leaderboard.is_search(study)
    if is_search:
        board = leaderboard.leaderboard(study)
        _show_leaderboard(settings, board, console)
        said = standings.best_lines(study, name=board.row_name)
    else:
        show_tables(study, console)
        said = standings.best_lines(study)
    found = standings.best(study).to_dict("records")
    for place, answer in enumerate(said):
        console.print(f"best: {legible(answer)}", markup=False, soft_wrap=True)
        if place < len(found):
            key = str(found[place]["trial_key"])
            line = serving.serve_line(study.frame, key) or serving.why_no_line(study.frame, key)
            today = serving.today(study.frame, key)
            beside = () if today is None else (today.about, today.line)
            # What a line needs of the host stands in lines of comment before it.
            for told in "\n".join(filter(None, (line, *beside))).splitlines():
                console.print(f"  {legible(told)}", markup=False, soft_wrap=True)
            cost = costs.line(study, str(found[place]["setting"]))
            if cost:
                console.print(f"  {legible(cost)}", markup=False, soft_wrap=True)
    further = [*kept_up.lines(study), *verdicts.sentences(study)]
    closing = "\n".join((*standings.closing_lines(study, has_front=not is_search), *further))
    for line in closing.splitlines():
        console.print(legible(line), markup=False, soft_wrap=True)
    noted = [*standings.closing_lines(study), *further]
    return [*standings.best_lines(study), *(line.strip() for line in noted)]


def _show_leaderboard(settings: Settings, board: Leaderboard, console: Console) -> None:
    """Print the first settings of a search; in a log as on a terminal, for a width cuts no number."""
    from analysis import leaderboard_text

    command = f"{analysis_command()} leaderboard {shlex.quote(str(settings.folder))} --all"
    for line in leaderboard_text.lines(board, width=console.width, all_command=command):
        console.print(legible(line), markup=False, soft_wrap=True, highlight=False)


def show_tables(study: Study, console: Console) -> None:
    """Print a table per metric: settings that somebody named, by load point."""
    from rich.table import Table
    from rich.text import Text

    from analysis import figures, standings, tables

    provenance = "simulated" if study.is_simulated else "measured"
    stand = standings.standings(study)
    for metric in figures.metrics_of(study):
        summary = tables.summary(study.frame, metric=metric.column, series=study.series)
        shown = f"{metric.title} ({provenance})"
        if len(stand.order) > _SHOWN_SETTINGS:
            leading = [name for name in stand.order if name in set(summary["setting"])][:_SHOWN_SETTINGS]
            summary = summary.set_index("setting").loc[leading].reset_index()
            which = "" if any(map(stand.breaks, leading)) else "the best "
            among = amount(len(stand.order), "setting")
            shown += f": {which}{len(leading)} of {among}, best first; report.md has all"
        is_repeated = bool((summary["n"] > 1).any())
        layout = tables.by_load_point(summary, None if is_repeated else _number_or_reason)
        names = [str(name) for name in layout["setting"]]
        cells = {str(point): [str(cell) for cell in layout[point]] for point in layout.columns[1:]}
        for columns in _blocks(names, cells, width=console.width):
            # Text, not markup: a label may hold square brackets.
            table = Table(title=Text(legible(shown)), title_justify="left")
            table.add_column("setting", overflow="fold")
            for point in columns:
                wide = _wide(point, cells[point])
                table.add_column(Text(legible(point)), justify="right", overflow="fold", min_width=wide)
            for place, setting in enumerate(names):
                broken = stand.breaks(setting)
                named = legible(setting) + (f"\n  breaks {broken}" if broken else "")
                table.add_row(Text(named), *(Text(legible(cells[point][place])) for point in columns))
            console.print(table)


def _blocks(names: Sequence[str], cells: Mapping[str, Sequence[str]], *, width: int) -> list[list[str]]:
    """Share the load points out among tables of a width, so that no number is cut.

    Args:
        names: Of the settings.
        cells: Texts of each load point, one per setting.
        width: Of the console, in characters.
    """
    longest = max(map(len, names), default=0)
    room = width - _BORDER - min(longest, _LEAST_NAME) - _PADDING
    found: list[list[str]] = []
    left = 0
    for point, texts in cells.items():
        wide = _wide(point, texts) + _PADDING
        if not found or wide > left:
            found.append([])
            left = room
        found[-1].append(point)
        left -= wide
    return found


def _wide(head: str, texts: Sequence[str]) -> int:
    """Return the least width of a column: head and numbers stay whole, a reason breaks between words."""
    pieces = (piece for text in texts for piece in ([text] if text[:1].isdigit() else text.split()))
    return max([len(head), *map(len, pieces)])


def _number_or_reason(row: Any) -> str:
    from analysis import tables

    return tables.mean_text(row) if row["n"] else tables.no_number_text(row)

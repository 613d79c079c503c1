"""What a person is told after a sweep: its counts, tables, charts and report."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from sweeper.cli.exit_codes import NOTHING_COMPLETE, OK, SOME_FAILED, STOPPED
from sweeper.cli.noting import show_on_dashboard
from sweeper.records import Platform, TrialResult, TrialState

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.study import Study
    from sweeper.config import Settings
    from sweeper.plan import Planner
    from sweeper.sweep import Outcome

_SHOWN_SETTINGS = 12


def conclude(
    settings: Settings, planner: Planner, outcome: Outcome, signalled: int | None, console: Console
) -> int:
    """Say how a sweep ended, and write and show its report.

    Args:
        settings: The study's settings.
        planner: What was to be run.
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
        _report(settings, planner, console)
    _count_up(outcome, console)
    if signalled is None:
        console.print(f"ended: {outcome.ended_by}", markup=False, soft_wrap=True)
    if signalled is not None:
        return STOPPED + signalled
    if not outcome.states.get(TrialState.COMPLETE, 0):
        return NOTHING_COMPLETE
    return SOME_FAILED if outcome.states.get(TrialState.FAILED, 0) else OK


def _count_up(outcome: Outcome, console: Console) -> None:
    counted = ", ".join(f"{count} {state}" for state, count in sorted(outcome.states.items()))
    console.print(f"trials: {counted or 'none'}; started now: {outcome.measured_now}", markup=False)
    for text, count in Counter(map(_failure_text, outcome.failures)).items():
        times = f"{count} times " if count > 1 else ""
        console.print(f"  {times}{text}", markup=False, soft_wrap=True)


def _failure_text(result: TrialResult) -> str:
    log = f" (log: {result.log_path})" if result.log_path else ""
    # Of what was never started, that it cannot run here matters more than the class of the reason.
    is_refused = result.state is TrialState.INFEASIBLE
    kind = result.state if is_refused else result.failure_class or result.state
    return f"{kind}: {result.failure_message}{log}"


def _report(settings: Settings, planner: Planner, console: Console) -> None:
    from analysis import report
    from sweeper.store import Store

    files = report.write(settings.folder)
    answers = _show_summary(settings, planner, console)
    show_on_dashboard(settings, files.figures, answers=answers)
    console.print("charts:", markup=False)
    for path in files.figures:
        console.print(f"  {path}", markup=False, soft_wrap=True)
    console.print(f"report: {files.report}", markup=False, soft_wrap=True)
    data = Store(settings.folder, settings.results).measurements
    console.print(f"data:   {data}", markup=False, soft_wrap=True)
    if settings.platform is Platform.SIMULATED:
        console.print("No GPU was measured: these numbers are simulated.", style="bold")


def _show_summary(settings: Settings, planner: Planner, console: Console) -> list[str]:
    """Print series by load point, the best setting, and the line that puts it into production.

    Returns:
        The best by each objective, a sentence each.
    """
    from rich.table import Table

    from analysis import bests, figures, serving, tables, verdicts
    from analysis.study import Study

    study = Study.load(settings.folder)
    provenance = "simulated" if study.is_simulated else "measured"
    leading = _leading_settings(study)
    for metric in figures.metrics_of(study):
        summary = tables.summary(study.frame, metric=metric.column, series=study.series)
        shown = f"{metric.title} ({provenance})"
        if leading is not None:
            count = summary["setting"].nunique()
            summary = summary.set_index("setting").loc[leading].reset_index()
            shown += f": the best {len(leading)} of {count} settings, best first; report.md has all"
        is_repeated = bool((summary["n"] > 1).any())
        layout = tables.by_load_point(summary, None if is_repeated else _number_or_reason)
        table = Table(title=shown, title_justify="left")
        for number, name in enumerate(layout.columns):
            table.add_column(str(name), justify="right" if number else "left")
        for row in layout.itertuples(index=False):
            table.add_row(*(str(cell) for cell in row))
        console.print(table)
    answers = []
    found = bests.best(
        study.frame, objectives=study.objectives, constraints=study.constraints, series=study.series
    )
    for answer in found.to_dict("records"):
        answers.append(
            f"{answer['setting']}: {answer['objective']}: {tables.number_text(answer['value'])} "
            f"({answer['verdict']})"
        )
        console.print(f"best: {answers[-1]}", markup=False, soft_wrap=True)
        key = str(answer["trial_key"])
        line = serving.serve_line(study.frame, key) or serving.why_no_line(study.frame, key)
        if line:
            console.print(f"  {line}", markup=False, soft_wrap=True)
    if found.empty and study.constraints:
        console.print("best: none: no setting keeps every bound", markup=False)
    closing = [*bests.closing_lines(study), *verdicts.sentences(study)]
    for line in closing:
        console.print(line, markup=False, soft_wrap=True)
    return [*answers, *(line.strip() for line in closing)]


def _leading_settings(study: Study) -> list[str] | None:
    """Name the best settings by the first objective, best first; None where all can be shown."""
    from analysis import tables

    objective = study.objectives[0]
    summary = tables.summary(study.frame, metric=objective.metric, series=study.series)
    if summary["setting"].nunique() <= _SHOWN_SETTINGS:
        return None
    means = summary.dropna(subset=["mean"]).groupby("setting")["mean"].mean()
    order = means.sort_values(ascending=objective.direction == "minimize")
    return [str(name) for name in order.index[:_SHOWN_SETTINGS]]


def _number_or_reason(row: Any) -> str:
    from analysis import tables

    return tables.number_text(row["mean"]) if row["n"] else tables.no_number_text(row)

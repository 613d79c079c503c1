"""The plan (``plan=true``): what would run, what is refused and why, where, how long and for how much.

Nothing is started and nothing is written. It is laid out for a terminal of 80 columns: long reasons stand
below the table, once each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sweeper.cli import plan_json
from sweeper.cli.exit_codes import OK
from sweeper.cli.expected import facts as expected_facts
from sweeper.cli.expected import learn, value_text
from sweeper.cli.forecast import forecast_facts, forecast_of, write_timeline
from sweeper.cli.ledger import ledger_of
from sweeper.cli.long_work import LongWork
from sweeper.cli.outcome import code_of
from sweeper.cli.plan_json import Ending, Plan
from sweeper.kinds import SEARCH_METHODS
from sweeper.plan.live import on_largest_start, search_line, shared_starts
from sweeper.prepare.search import anchoring_of, first_jobs, is_too_large, size_text
from sweeper.records import TrialState
from sweeper.records.plurals import amount, percent
from sweeper.simulation.intervals import factor
from sweeper.space.domains import Choice, Domain
from sweeper.text.durations import duration_text
from sweeper.text.expected import told_once

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.config import Settings
    from sweeper.plan.planner import Job, Planner
    from sweeper.plan.sample import Survey
    from sweeper.prepare.anchoring import Anchoring
    from sweeper.store.store import FinishedTrial
    from sweeper.sweep.ledger import Ledger
    from sweeper.topology import Node

_SHOWN_TRIALS = 60
_SHOWN_REASONS = 8


def show_plan(
    settings: Settings, planner: Planner, nodes: Sequence[Node], console: Console, *, answer: Console
) -> int:
    """Print what would run, and write it where that is asked for; start nothing.

    Args:
        settings: The study's settings.
        planner: Whose space it is.
        nodes: Where it would run.
        console: Where a person reads.
        answer: Standard output, which a plan as JSON may be meant for.

    Returns:
        The exit code: that of the run where nothing is left to run, so that a script sees it beforehand.
    """
    ledger = ledger_of(settings, planner)
    console.print(f"\nplan of {settings.name}: nothing is started", style="bold", markup=False)
    if is_too_large(settings, planner):
        show = _show_large_grid
    else:
        show = _show_grid if SEARCH_METHODS[settings.method].is_exhaustive else _show_search
    plan = show(settings, planner, nodes, ledger, console)
    ending = _ending(ledger, plan)
    if ending.nothing_runs is not None:
        console.print(f"result: {ending.nothing_runs}", markup=False, soft_wrap=True)
    plan_json.write(settings, planner, ledger, plan, ending, console=console, answer=answer)
    return ending.exit_code


def _ending(ledger: Ledger, plan: Plan) -> Ending:
    """Return how the plan ends: as the run would, where nothing is left to run."""
    if plan.forecast.predictions:
        return Ending(exit_code=OK)
    code = code_of(ledger.states)
    if ledger.states.get(TrialState.COMPLETE, 0):
        return Ending(exit_code=code)
    found = plan.survey
    if found.jobs if found is not None else any(job.refusal is None for job in plan.jobs):
        return Ending(
            exit_code=code,
            nothing_runs="no trial is left to run, and none is complete; expected one. Let those that failed "
            "run again with retry_failed=true, or ask for other settings.",
        )
    which = (
        "every setting is refused"
        if found is None or found.is_whole
        else f"all of {amount(found.looked_at, 'setting', ',')} drawn at random are refused"
    )
    return Ending(
        exit_code=code,
        nothing_runs=f"no trial can run: {which}, for the reasons above; expected one that can. Give the "
        "knobs other values, change the rules, or plan for other devices.",
    )


# ---- a grid: its trials ----


def _show_grid(
    settings: Settings,
    planner: Planner,
    nodes: Sequence[Node],
    ledger: Ledger,
    console: Console,
) -> Plan:
    from rich.table import Table
    from rich.text import Text

    grid = planner.grid(seen=LongWork(console, "planning settings").seen)
    shared = shared_starts(planner, grid, is_measured=ledger.is_complete)
    jobs = list(shared.jobs)
    can_run = [job for job in jobs if job.refusal is None]
    jobs += [job for _, job in planner.controls(len(can_run))]
    ledger.learn_stored(again=ledger.tried_again(jobs))
    ended_by = ledger.reason_to_end(elapsed_s=0.0)
    to_run = [] if ended_by else ledger.runnable(jobs)
    finals = _finals(settings, planner, can_run, ledger, is_over=not to_run)
    jobs += finals
    forecast = forecast_of(settings, jobs, to_run + ledger.runnable(finals), nodes, ledger, console)
    anchoring = _taught(settings, planner, jobs, ledger)
    reasons = list(dict.fromkeys(str(job.refusal) for job in jobs if job.refusal is not None))
    table = Table()
    table.add_column("trial", overflow="fold")
    # Headers of two lines leave room for a knob and its number, which 80 columns would else cut in two.
    for name in ("devices", "load\npoints", "predicted"):
        table.add_column(name, justify="right")
    if anchoring is not None:
        table.add_column("expected", justify="right", overflow="fold")
    table.add_column("what\nhappens")
    for job in jobs[:_SHOWN_TRIALS]:
        predicted = forecast.predictions.get(job.spec.key)
        runs = anchoring is not None and predicted is not None
        table.add_row(
            Text(job.spec.label),
            str(job.spec.devices_wanted),
            str(len(job.spec.load_points)),
            duration_text(predicted.total_s) if predicted else "",
            *([] if anchoring is None else [value_text(settings, anchoring, job.spec) if runs else ""]),
            _fate(job, ledger.find(job.spec.key), reasons, runs=predicted is not None),
        )
    console.print(table)
    if len(jobs) > _SHOWN_TRIALS:
        console.print(f"... and {amount(len(jobs) - _SHOWN_TRIALS, 'trial')} more")
    fates = Counter(
        plan_json.fate(job, ledger.find(job.spec.key), runs=job.spec.key in forecast.predictions)
        for job in jobs
    )
    unbegun = f", {fates['not begun']} not begun" if fates["not begun"] else ""
    facts = {
        "trials": f"{len(jobs)}: {fates['runs']} run, {fates['refused']} refused, "
        f"{fates['stored']} in the store{unbegun}",
        "ended by": ended_by or "",
    }
    facts |= {"decides": _deciding_text(settings)}
    facts |= {"live": "\n".join(shared.lines)} if shared.lines else {}
    facts |= {f"refused ({number})": reason for number, reason in enumerate(reasons, start=1)}
    facts |= forecast_facts(settings, forecast) | _error_facts(jobs)
    _show_facts(facts | ({} if anchoring is None else expected_facts(settings, anchoring)), console)
    write_timeline(settings, forecast, console)
    return Plan(jobs=jobs, forecast=forecast, anchoring=anchoring, ended_by=ended_by)


def _show_large_grid(
    settings: Settings,
    planner: Planner,
    nodes: Sequence[Node],
    ledger: Ledger,
    console: Console,
) -> Plan:
    """Describe a grid that is too large to be measured or listed, by its counts and by points drawn of it."""
    from sweeper.plan.sample import survey

    found = survey(planner, seed=settings.seed, seen=LongWork(console, "planning settings").seen)
    drawn = [on_largest_start(planner, job) for job in found.jobs]
    forecast = forecast_of(settings, drawn, ledger.runnable(drawn), nodes, ledger, console)
    runs = round((found.combinations or 0) * found.share_that_runs)
    facts = {
        "too large": size_text(settings, planner),
        "trials": f"about {runs:,} would run, by the points drawn; {ledger.spent:,} in the store",
        "decides": _deciding_text(settings),
        "load points": "; ".join(point.label for point in settings.load_points),
    }
    _show_facts(facts, console)
    _show_domains(planner, console)
    facts = _space_facts(planner, found) | forecast_facts(settings, forecast)
    if forecast.predictions:
        each = forecast.node_hours / len(forecast.predictions)
        facts["predicted"] = (
            f"the whole grid about {each * runs:,.0f} node-hours; of the {len(forecast.predictions):,} drawn "
            f"{facts['predicted']}"
        )
    facts.pop("cost", None)
    _show_facts(facts | _error_facts(found.jobs), console)
    return Plan(jobs=(), forecast=forecast, survey=found)


def _taught(settings: Settings, planner: Planner, jobs: Sequence[Job], ledger: Ledger) -> Anchoring | None:
    """Return what predicts the trials of a measured study, once its own trials have taught it."""
    anchoring = anchoring_of(settings, planner)
    if anchoring is not None:
        learn(anchoring, jobs, ledger.stored)
    return anchoring if anchoring is not None and anchoring.revision else None


def _deciding_text(settings: Settings) -> str:
    """Say which load decides what is best and why, where there are several, or where it decides too much."""
    from sweeper.goals.deciding import clocked_texts, deciding_texts

    given = settings.objectives, settings.load_points
    return "\n".join([*deciding_texts(*given), *clocked_texts(*given)])


def _error_facts(jobs: Sequence[Job]) -> dict[str, str]:
    """Say how far off simulated numbers are to be expected; of measured ones nothing."""
    specs = [job.spec for job in jobs if job.refusal is None]
    facts: dict[str, Sequence[str | None]] = {
        "nearest stack": [
            f"{spec.calibration_name}: {spec.calibration_nearness}" if spec.calibration_nearness else None
            for spec in specs
        ],
        "expected error": told_once([spec.expected_error for spec in specs]),
        "four of five": [_interval_text(spec.stack_distance) for spec in specs],
    }
    return {
        name: "; ".join(dict.fromkeys(text for text in told if text is not None))
        for name, told in facts.items()
    }


def _interval_text(distance: float | None) -> str | None:
    """Say within what percentage four of five numbers that were not seen lay, by kind of metric."""
    if distance is None:
        return None
    found = {
        name: factor(metric, distance)
        for name, metric in (
            ("throughput", "output_throughput_tok_per_s"),
            ("TTFT", "mean_ttft_ms"),
            ("TPOT", "mean_tpot_ms"),
            ("latency", "mean_batch_latency_ms"),
        )
    }
    told = [f"{name} within {percent(wide - 1)}" for name, wide in found.items() if wide is not None]
    return ", ".join(told) if told else None


def _fate(job: Job, known: FinishedTrial | None, reasons: Sequence[str], *, runs: bool) -> str:
    if job.refusal is not None:
        return f"refused ({reasons.index(str(job.refusal)) + 1})"
    if known is None:
        return "runs" if runs else "is not begun"
    return f"runs again (was {known.state})" if runs else f"stored: {known.state}"


# ---- a search: its space ----


def _show_search(
    settings: Settings,
    planner: Planner,
    nodes: Sequence[Node],
    ledger: Ledger,
    console: Console,
) -> Plan:
    from sweeper.plan.sample import survey

    found = survey(planner, seed=settings.seed)
    # A search begins with points that it does not draw, which may run where none that is drawn can.
    can_run = found.jobs or (() if found.is_whole else first_jobs(settings, planner))
    sampled = [on_largest_start(planner, job) for job in can_run]
    line = search_line(planner)
    spent = ledger.spent
    repeated = [on_largest_start(planner, job) for job in ledger.repeated_jobs()]
    ledger.learn_stored(again=ledger.tried_again(repeated))
    ended_by = ledger.reason_to_end(elapsed_s=0.0)
    left = max((settings.trials or 0) - spent, 0)
    again = repeated + [job for _, job in planner.controls(settings.trials or 0)]
    if ended_by:
        left, repeated, again = 0, [], []
    again += _finals(settings, planner, sampled, ledger, is_over=left == 0)
    # Which points the search will choose depends on what it finds; any others cost about as much.
    to_run = ledger.runnable(again) + ledger.runnable(sampled)[:left]
    known = ledger.stored_jobs()
    forecast = forecast_of(settings, [*again, *sampled, *known], to_run, nodes, ledger, console)
    anchoring = _taught(settings, planner, known, ledger)
    facts = {
        "search": f"{settings.method}, seed {settings.seed}: {amount(settings.trials or 0, 'trial')}, "
        f"{spent} of them in the store, {left} left"
        + (f"; {amount(len(repeated), 'trial')} without a result will be run again" if repeated else ""),
        "ended by": ended_by or "",
        "objective": "; ".join(f"{goal.direction} {goal.name}" for goal in settings.objectives),
        "decides": _deciding_text(settings),
        "bounds": "; ".join(bound.name for bound in settings.constraints),
        "load points": "; ".join(point.label for point in settings.load_points),
        "endings": _endings_text(settings),
        "live": line or "",
    }
    _show_facts(facts, console)
    _show_domains(planner, console)
    _show_facts(
        _space_facts(planner, found)
        | forecast_facts(settings, forecast)
        | _chosen_text(found, left)
        | _error_facts([*again, *found.jobs])
        | ({} if anchoring is None else expected_facts(settings, anchoring)),
        console,
    )
    write_timeline(settings, forecast, console)
    return Plan(jobs=to_run, forecast=forecast, survey=found, anchoring=anchoring, ended_by=ended_by)


def _finals(
    settings: Settings, planner: Planner, jobs: Sequence[Job], ledger: Ledger, *, is_over: bool
) -> list[Job]:
    """Return the finalists' engine starts.

    Args:
        settings: The study's settings.
        planner: Whose space it is.
        jobs: Settings that can run.
        ledger: What is known.
        is_over: Whether all else is measured, so that the finalists are known. Before that any others stand
            in for them: they cost about as much.
    """
    from itertools import chain

    from sweeper.plan import finalists

    endings = settings.endings
    if not endings.finalists:
        return []
    best = [job for job in jobs if job.refusal is None][: endings.finalists]
    if is_over:
        keys = ledger.progress.best(endings.finalists)
        best = finalists.stored_jobs(planner, {key: ledger.stored.rows_of(key)[0] for key in keys})
    if not best:
        return []
    rounds = finalists.rounds(best, planner.default(), repeats=endings.final_repeats, seed=settings.seed)
    return list(chain.from_iterable(rounds))


def _endings_text(settings: Settings) -> str:
    endings = settings.endings
    limits = {
        "search.max_hours": endings.max_hours,
        "search.max_node_hours": endings.max_node_hours,
        "search.min_improvement": endings.min_improvement,
    }
    parts = [f"{key}={value:g} ends the study earlier" for key, value in limits.items() if value is not None]
    if endings.stop_margin is not None:
        parts.append("trials that no longer matter stop early: the times below are the most")
    if endings.finalists:
        parts.append(
            f"then the best {endings.finalists} and the default start {endings.final_repeats} times each"
        )
    return "; ".join(parts)


def _show_domains(planner: Planner, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    space = planner.space
    table = Table()
    for name in ("knob", "values", *(["only where"] if space.conditions else [])):
        table.add_column(name, overflow="fold")
    if space.series:
        table.add_row("series", Text(", ".join(series.name for series in space.series)))
    for name, domain in space.domains.items():
        condition = [Text(space.conditions[name].text)] if name in space.conditions else []
        table.add_row(name, Text(_domain_text(domain)), *condition)
    console.print(table)


def _domain_text(domain: Domain) -> str:
    if isinstance(domain, Choice):
        return ", ".join(_value_text(value) for value in domain.values)
    words = f"{domain.low:g} to {domain.high:g}"
    if domain.step is not None:
        words += f" in steps of {domain.step:g}"
    words += "" if domain.is_int else ", any number between"
    return f"{words}, by its logarithm" if domain.log else words


def _value_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _space_facts(planner: Planner, found: Survey) -> dict[str, str]:
    """Describe what always holds, what joins the knobs, how large the space is, and what of it is refused."""
    space = planner.space
    fixed = [
        f"{name}={_value_text(value)}" for name, value in space.base.items() if name not in space.domains
    ]
    size = "no end of" if found.combinations is None else f"{found.combinations:,}"
    looked = "all looked at" if found.is_whole else f"{found.looked_at:,} drawn at random and looked at"
    facts = {"fixed": ", ".join(fixed)} if fixed else {}
    facts |= {f"rule {number}": str(rule) for number, rule in enumerate(space.rules, start=1)}
    facts["space"] = f"{size} combinations, {looked}: {len(found.jobs):,} distinct settings can run"
    for number, alike in enumerate(found.refusals[:_SHOWN_REASONS], start=1):
        example = "" if alike.is_same else "for example: "
        facts[f"refused ({number})"] = f"{alike.count:,}: {example}{alike.reason}"
    if len(found.refusals) > _SHOWN_REASONS:
        facts["refused (...)"] = f"for {len(found.refusals) - _SHOWN_REASONS} other reasons"
    return facts


def _chosen_text(found: Survey, left: int) -> dict[str, str]:
    if not found.jobs:
        return {}
    if found.is_whole and len(found.jobs) < left:
        only = amount(len(found.jobs), "setting")
        return {"result": f"the space has only {only}: the search ends with the last one"}
    return {"rests on": "settings drawn at random; the search chooses its own as it learns"} if left else {}


def _show_facts(facts: Mapping[str, str], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in facts.items():
        if text:
            table.add_row(name, Text(text))
    console.print(table)

"""``plan_json``: a plan as JSON, for programs: its trials one by one, what is left out and why, its cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.cli import as_json
from sweeper.cli.long_work import LongWork
from sweeper.errors import AnswerError
from sweeper.records import Platform
from sweeper.text.writing import write_answer

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.config import Settings
    from sweeper.plan.forecast import Forecast
    from sweeper.plan.planner import Job, Planner
    from sweeper.plan.sample import Survey
    from sweeper.prepare.anchoring import Anchoring, Expected
    from sweeper.schedule.scheduler import Span
    from sweeper.store.store import FinishedTrial
    from sweeper.sweep.ledger import Ledger

STANDARD_OUTPUT = "-"
"""The file that is none: the plan is all that standard output gets."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the tables of a plan were made from.

    Attributes:
        jobs: Trials to list. Of a search they are drawn at random; a grid that is too large lists none.
        forecast: Of those that would run; of a grid that is too large, of points drawn.
        survey: What was found in a space that is not listed whole; None of a grid.
        anchoring: What expects numbers of a measured study's trials; None where nothing does.
        ended_by: Which limit earlier runs have reached, so that nothing new is begun; None where none.
    """

    jobs: Sequence[Job]
    forecast: Forecast
    survey: Survey | None = None
    anchoring: Anchoring | None = None
    ended_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a plan ends.

    Attributes:
        exit_code: Of the program.
        nothing_runs: Why no trial would run though none is complete, and what to do; None where that is not
            so.
    """

    exit_code: int
    nothing_runs: str | None = None


def write(
    settings: Settings,
    planner: Planner,
    ledger: Ledger,
    plan: Plan,
    ending: Ending,
    *,
    console: Console,
    answer: Console,
) -> None:
    """Write a plan where its settings ask for it as JSON.

    Args:
        settings: The study's settings.
        planner: Whose space and node it is.
        ledger: What is known of the study.
        plan: What was found.
        ending: How the plan ends.
        console: Where a person reads.
        answer: Standard output.

    Raises:
        AnswerError: The file cannot be written.
    """
    if settings.plan_json is None:
        return
    told = content(settings, planner, ledger, plan, ending, seen=LongWork(console, "modelling settings").seen)
    if settings.plan_json == STANDARD_OUTPUT:
        as_json.answer(told, answer)
        return
    try:
        write_answer(Path(settings.plan_json), json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    except AnswerError as exc:
        raise AnswerError(f"plan_json: {exc}") from exc
    console.print(f"plan: {settings.plan_json}", markup=False, soft_wrap=True)


def content(
    settings: Settings,
    planner: Planner,
    ledger: Ledger,
    plan: Plan,
    ending: Ending,
    *,
    seen: Callable[[int, int], object] = lambda done, total: None,
) -> dict[str, Any]:
    """Return a plan as plain data.

    Args:
        settings: The study's settings.
        planner: Whose space and node it is.
        ledger: What is known of the study.
        plan: What was found.
        ending: How the plan ends.
        seen: Called with how many trials' numbers are predicted, and how many there are.
    """
    return {
        "study": settings.name,
        "platform": str(settings.platform),
        "engine": {"kind": planner.engine.kind, "release": planner.engine.release},
        "model": planner.model.name,
        "search": {
            "method": settings.method,
            "seed": settings.seed,
            "trials": settings.trials,
            "spent": ledger.spent,
        },
        "objectives": [f"{goal.direction} {goal.name}" for goal in settings.objectives],
        "bounds": [bound.name for bound in settings.constraints],
        "load_points": [point.label for point in settings.load_points],
        "exit_code": ending.exit_code,
        "nothing_runs": ending.nothing_runs,
        "ended_by": plan.ended_by,
        "totals": _totals(plan, ledger),
        "points": _points(settings, planner, ledger, plan, seen),
        "left_out": _left_out(planner, plan),
        "forecast": _forecast(settings, plan.forecast),
    }


# ---- trials ----


def _points(
    settings: Settings,
    planner: Planner,
    ledger: Ledger,
    plan: Plan,
    seen: Callable[[int, int], object],
) -> list[dict[str, Any]]:
    places = {span.entry.key: span for span in plan.forecast.spans}
    model = _model_of(settings, planner, plan)
    told = []
    for number, job in enumerate(plan.jobs):
        seen(number, len(plan.jobs))
        predicted = plan.forecast.predictions.get(job.spec.key)
        numbers = model.expected(job.spec) if model is not None and predicted is not None else []
        known = ledger.find(job.spec.key)
        told.append(
            {
                "setting": job.spec.label,
                "trial_key": job.spec.key,
                "role": job.spec.role,
                "series": list(job.spec.series),
                "knobs": dict(job.spec.assignment),
                "devices": job.spec.devices_wanted,
                "what_happens": fate(job, known, runs=predicted is not None),
                "stored_state": None if known is None else str(known.state),
                "refusal": None if job.refusal is None else _refusal(job),
                "predicted_s": None if predicted is None else predicted.total_s,
                "placement": _placement(places.get(job.spec.key)),
                "expected": [_expected(one) for one in numbers],
            }
        )
    return told


def _model_of(settings: Settings, planner: Planner, plan: Plan) -> Anchoring | None:
    """Return what expects numbers: a measured study's trials, or on the simulated platform its model."""
    if settings.platform is not Platform.SIMULATED or settings.modelled_device is None:
        return plan.anchoring
    from sweeper.prepare.anchoring import Anchoring

    metrics = [goal.metric for goal in settings.objectives] + [bound.metric for bound in settings.constraints]
    device = settings.modelled_device
    return Anchoring(node=planner.node, device=device, metrics=metrics, serves_whole=True)


def fate(job: Job, known: FinishedTrial | None, *, runs: bool) -> str:
    """Return what becomes of a trial: ``refused``, ``runs``, ``stored`` or ``not begun``."""
    if job.refusal is not None:
        return "refused"
    if runs:
        return "runs"
    return "not begun" if known is None else "stored"


def _refusal(job: Job) -> dict[str, Any]:
    assert job.refusal is not None
    return {"class": str(job.refusal.failure), "reason": str(job.refusal), "is_rule": job.refusal.is_rule}


def _placement(span: Span | None) -> dict[str, Any] | None:
    if span is None:
        return None
    return {
        "node": span.placement.node,
        "devices": list(span.placement.devices),
        "gpus": list(span.placement.parents),
        "start_s": span.start_s,
        "end_s": span.end_s,
    }


def _expected(one: Expected) -> dict[str, Any]:
    return {
        "load_point": one.load,
        "metric": one.metric,
        "value": one.value,
        "low_80": one.low,
        "high_80": one.high,
        "anchored_by_trials": one.anchored_by,
    }


# ---- all of them ----


def _totals(plan: Plan, ledger: Ledger) -> dict[str, Any]:
    """Count the trials that are listed, and the space where it is larger than the list."""
    runs = plan.forecast.predictions
    fates = [fate(job, ledger.find(job.spec.key), runs=job.spec.key in runs) for job in plan.jobs]
    counted = {
        "listed": len(fates),
        "run": fates.count("runs"),
        "refused": fates.count("refused"),
        "stored": fates.count("stored"),
        "in_store": sum(ledger.states.values()),
    }
    found = plan.survey
    space = {
        "combinations": found.combinations,
        "looked_at": found.looked_at,
        "is_whole": found.is_whole,
        "can_run": len(found.jobs),
    } if found is not None else None  # fmt: skip
    return {**counted, "space": space}


def _left_out(planner: Planner, plan: Plan) -> dict[str, Any]:
    """Return what the space could not have here, and why points of it are refused, the same reasons once."""
    if plan.survey is not None:
        refused = [(alike.reason, alike.count, not alike.is_same) for alike in plan.survey.refusals]
    else:
        reasons = Counter(str(job.refusal) for job in plan.jobs if job.refusal is not None)
        refused = [(reason, count, False) for reason, count in (reasons + planner.ruled_out).items()]
    return {
        "knobs": list(planner.left_out),
        "points": [
            {"reason": reason, "count": count, "is_example": is_example}
            for reason, count, is_example in refused
        ],
    }


def _forecast(settings: Settings, found: Forecast) -> dict[str, Any] | None:
    """Return what all that would run costs; None where nothing runs."""
    from sweeper.cli.forecast import cost_of

    if not found.spans:
        return None
    return {
        "nodes": [{"host": node.host, "devices": len(node.devices)} for node in found.nodes],
        "trials": len(found.predictions),
        "makespan_s": found.makespan_s,
        "node_hours": found.node_hours,
        "idle_share": found.idle_share,
        "basis": found.basis,
        "cost": cost_of(settings, found),
        "currency": settings.currency or None,
    }

"""What a study's trials are expected to reach, as its own finished trials say: in the plan, and in a file.

Expected numbers have their own places and say by how many trials they are anchored. No row of a result, no
chart and no claim takes one for a measurement.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sweeper.errors import AnswerError
from sweeper.goals.objectives import trial_values
from sweeper.records.plurals import amount, percent
from sweeper.text.printable import legible
from sweeper.text.writing import write_answer

if TYPE_CHECKING:
    from rich.console import Console

    from sweeper.config import Settings
    from sweeper.plan.planner import Job
    from sweeper.prepare.anchoring import Anchoring, Expected
    from sweeper.records import TrialSpec
    from sweeper.store.trials import StoredTrials

FILE = "expected.csv"
"""In a study's folder: each trial as it was expected from those that ended before it, and as measured."""

COLUMNS = (
    *("trial_key", "load", "metric", "expected", "low_80", "high_80", "anchored_by_trials", "measured"),
)


def learn(anchoring: Anchoring, jobs: Iterable[Job], stored: StoredTrials) -> None:
    """Teach what the store holds of planned trials, in the order in which they ended."""
    by_key = {key: job.spec for job in jobs for key in (job.spec.shared_key, job.spec.key)}
    for trial in stored:
        if trial.key in by_key:
            anchoring.learn(by_key[trial.key], stored.rows_of(trial.key))


def value_text(settings: Settings, anchoring: Anchoring, spec: TrialSpec) -> str:
    """Return the first objective as it is expected of a trial, with its interval; empty where it is not."""
    goal = settings.objectives[0]
    values = trial_values([goal], anchoring.rows(spec) or [])
    if values is None:
        return ""
    wide = anchoring.anchors.wide(goal.metric)
    return f"{values[0]:.3g}" + (f" ({values[0] / wide:.3g} to {values[0] * wide:.3g})" if wide else "")


def facts(settings: Settings, anchoring: Anchoring) -> dict[str, str]:
    """Say by how many trials predictions are anchored, how far these moved them, and how sure they are."""
    anchors = anchoring.anchors
    if not anchors.trials:
        return {}
    moved = ", ".join(f"{metric} x{anchors.factor(metric):.3g}" for metric in anchors.metrics)
    sure = ", ".join(
        f"{metric} within {percent(wide - 1)}" for metric in anchors.metrics if (wide := anchors.wide(metric))
    )
    return {
        "expected": f"{settings.objectives[0].name}: predicted, not measured; the model's numbers moved by "
        f"{amount(anchors.trials, 'trial')} of this study ({moved})",
        "four of five of these": sure,
    }


def write(settings: Settings, anchoring: Anchoring, console: Console) -> None:
    """Write how each trial was expected before it was measured, and say how far off that was."""
    from sweeper.cli.long_work import LongWork

    told = anchoring.expected_before(LongWork(console, "predicting the measured trials").seen)
    # The model's own word is of a load cut short; what moves it makes up for that.
    anchored = [one for one in told if one.anchored_by]
    if not anchored:
        return
    path = settings.folder / FILE
    try:
        write_answer(path, _csv(anchored))
    except AnswerError as exc:
        console.print(f"expected: not written: {legible(exc)}", markup=False, soft_wrap=True)
        return
    trials = len({one.trial for one in anchored})
    predicted = f"{'each of ' if trials > 1 else ''}{amount(trials, 'trial')}"
    console.print(
        f"expected: {predicted} was predicted from those before it, "
        f"{_errors_text(anchored)} off in the middle, {_inside_text(anchored)}: {path}",
        markup=False,
        soft_wrap=True,
    )


def _errors_text(told: Sequence[Expected]) -> str:
    """Say the middle of the absolute errors of each metric."""
    errors: dict[str, list[float]] = {}
    for one in told:
        if one.measured:
            errors.setdefault(one.metric, []).append(abs(one.value / one.measured - 1))
    return ", ".join(f"{metric} {percent(statistics.median(found))}" for metric, found in errors.items())


def _inside_text(told: Sequence[Expected]) -> str:
    """Say how many numbers lay within the interval that is to hold four of five."""
    sure = [one for one in told if one.low is not None and one.high is not None and one.measured]
    inside = sum((one.low or 0) <= (one.measured or 0) <= (one.high or 0) for one in sure)
    return f"{inside} of {len(sure)} numbers within their interval of 80 %"


def _csv(told: Iterable[Expected]) -> str:
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in told:
        ends = ("" if end is None else f"{end:.6g}" for end in (one.low, one.high))
        writer.writerow(
            (one.trial, one.load, one.metric, f"{one.value:.6g}", *ends, one.anchored_by, one.measured)
        )
    return content.getvalue()

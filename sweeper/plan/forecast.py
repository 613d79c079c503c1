"""What a plan would cost: its trials, predicted and placed by the real scheduler on a virtual clock."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweeper.plan.planner import Job, Seen, unseen
from sweeper.records import Platform, TrialSpec
from sweeper.schedule.durations import Prediction, Predictor, SharedStarts
from sweeper.schedule.occupancy import Entry
from sweeper.schedule.scheduler import Scheduler, Span, idle_share, makespan_s, play
from sweeper.text.writing import write_answer
from sweeper.topology import Node

CSV_COLUMNS = (
    *("setting", "trial_key", "node", "device", "gpu", "start_s", "end_s"),
    *("is_exclusive", "provenance", "basis"),
)
"""A row per trial and device it would hold; a device that nobody would hold has a row without a trial."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A predicted course of a study.

    Attributes:
        predictions: Of every trial that would run, by its key.
        spans: Who would hold which devices when.
    """

    jobs: Mapping[str, Job]
    predictions: Mapping[str, Prediction]
    spans: tuple[Span, ...]
    nodes: tuple[Node, ...]

    @property
    def makespan_s(self) -> float:
        """First start to last end, seconds."""
        return makespan_s(self.spans)

    @property
    def node_hours(self) -> float:
        """Time for which the nodes are taken, all together."""
        return self.makespan_s * len(self.nodes) / 3600

    @property
    def idle_share(self) -> float:
        """Share of the devices' time in which no trial holds them, 0 to 1."""
        return idle_share(self.spans, devices=sum(len(node.devices) for node in self.nodes))

    @property
    def basis(self) -> str:
        """What the predictions rest on."""
        return ", ".join(sorted({prediction.basis for prediction in self.predictions.values()}))


def forecast(
    jobs: Sequence[Job],
    *,
    predictor: Predictor,
    scheduler: Scheduler,
    nodes: Sequence[Node],
    seen: Seen = unseen,
) -> Forecast:
    """Predict the course of these trials on real machines of this shape; nothing is started.

    Args:
        jobs: Those that would run; none of them refused.
        predictor: What is known of the study so far.
        scheduler: Empty, over ``nodes``; it is used up.
        nodes: Where the trials would run.
        seen: Is called with the trials placed so far and all there are.
    """
    starts = SharedStarts()
    predictions = {job.spec.key: starts.share(job.spec, predictor.predict(job.spec)) for job in jobs}
    entries = [
        Entry(
            key=job.spec.key,
            devices=job.spec.devices_wanted,
            predicted_s=predictions[job.spec.key].total_s,
            is_exclusive=_changes_host(job.spec),
            start_key=job.spec.start_key,
        )
        for job in jobs
    ]
    return Forecast(
        jobs={job.spec.key: job for job in jobs},
        predictions=predictions,
        spans=play(scheduler, entries, lasts_s=lambda entry: entry.predicted_s, seen=seen),
        nodes=tuple(nodes),
    )


def _changes_host(spec: TrialSpec) -> bool:
    """Whether a trial runs alone on a machine; what a modelled node would take on one is what is asked."""
    on_machine = replace(spec, platform=Platform.MI300X) if spec.platform is Platform.SIMULATED else spec
    return on_machine.is_exclusive


def write_csv(found: Forecast, path: Path) -> None:
    """Write a forecast for ``python -m analysis timeline``, in ``CSV_COLUMNS``.

    Raises:
        AnswerError: The file cannot be written.
    """
    content = io.StringIO()
    writer = csv.DictWriter(content, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(found))
    write_answer(path, content.getvalue())


def _rows(found: Forecast) -> list[dict[str, object]]:
    gpus = {(node.host, device.index): device.parent for node in found.nodes for device in node.devices}
    rows: list[dict[str, object]] = [
        {
            "setting": found.jobs[span.entry.key].spec.label,
            "trial_key": span.entry.key,
            "node": span.placement.node,
            "device": device,
            "gpu": gpus[span.placement.node, device],
            "start_s": round(span.start_s, 1),
            "end_s": round(span.end_s, 1),
            "is_exclusive": span.entry.is_exclusive,
            "provenance": "predicted",
            "basis": found.predictions[span.entry.key].basis,
        }
        for span in found.spans
        for device in span.placement.devices
    ]
    used = {(row["node"], row["device"]) for row in rows}
    idle = [seat for seat in gpus if seat not in used]
    return rows + [
        {"node": node, "device": device, "gpu": gpus[node, device], "provenance": "predicted"}
        for node, device in idle
    ]

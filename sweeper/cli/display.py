"""What a person sees while a sweep runs: one live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeper.records import SEARCH_SLOS, Placement, TrialResult, TrialSpec, TrialState
from sweeper.records.metrics import BY_NAME
from sweeper.records.plurals import amount
from sweeper.sweep.outlook import Outlook
from sweeper.text import reasons
from sweeper.text.numbers import number_text
from sweeper.text.printable import legible
from sweeper.trial import stages

_SHOWN_DEVICES = 16
# Where there is no terminal to draw on, a line now and then says that the sweep goes on.
_SIGN_OF_LIFE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class _Running:
    spec: TrialSpec
    placement: Placement
    since_s: float


class Display:
    """Shows the progress of a sweep; an observer in the sense of ``sweep``."""

    def __init__(
        self, console: Console, *, devices: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare for a node of so many devices."""
        self._console = console
        self._devices = devices
        self._clock = clock
        self._live: Live | None = None
        self._running: dict[str, _Running] = {}
        self._durations_s: list[float] = []
        self._total: int | None = None
        self._counts = dict.fromkeys(("stored", "complete", "failed", "infeasible"), 0)
        self._refused = 0
        self._alike: dict[str, list[str]] = {}
        self._outlook: Outlook | None = None
        self._looked_at_s = self._said_at_s = clock()

    def __enter__(self) -> Display:
        """Start the live table where there is a terminal."""
        if self._console.is_terminal:
            self._live = Live(self._render(), console=self._console, refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """End the live table, and say how many settings were refused without a line of their own."""
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None
        for told in self._alike.values():
            if len(told) > reasons.SHOWN:
                self._say(f"infeasible: {reasons.and_more(told[0], len(told) - 1)}")

    def planned(self, *, total: int | None, done: int, refused: int) -> None:
        """The work is known."""
        self._total = total
        self._counts["stored"], self._refused = done, refused
        self._said_at_s = self._clock()
        parts = ["? trials" if total is None else amount(total, "trial")]
        if done:
            parts.append(f"{done} already in the store")
        if refused:
            parts.append(f"{refused} cannot run here")
        self._say("plan: " + ", ".join(parts))

    def started(self, spec: TrialSpec, placement: Placement) -> None:
        """Called when a trial holds its devices and runs."""
        self._running[spec.key] = _Running(spec=spec, placement=placement, since_s=self._clock())
        if self._live is None:
            self._say(f"start   {spec.label}  on {device_label(placement)}")
        self.tick()

    def finished(self, result: TrialResult, *, will_retry: bool) -> None:
        """Called when a trial has ended."""
        running = self._running.pop(result.spec.key, None)
        took = "" if running is None else f" in {_duration(self._clock() - running.since_s)}"
        if running is not None and result.state is TrialState.COMPLETE:
            self._durations_s.append(self._clock() - running.since_s)
        if will_retry:
            told = reasons.reason_text(result.failure_class, result.failure_message)
            self._say(f"again   {result.spec.label}: {told}")
            return
        self._counts[str(result.state)] = self._counts.get(str(result.state), 0) + 1
        if result.state is TrialState.INFEASIBLE and not self._is_new(result):
            return
        if result.state is TrialState.COMPLETE:
            self._say(f"done    {self._position()} {result.spec.label}{took}: {_headline(result)}")
            for sentence in _short_answers(result):
                self._say(f"short   {sentence}")
        else:
            told = reasons.reason_text(result.failure_class, result.failure_message)
            self._say(f"{result.state!s:<7} {self._position()} {result.spec.label}{took}: {told}")
        self.tick()

    def look_ahead(self, outlook: Outlook) -> None:
        """Store how the sweep stands."""
        self._outlook, self._looked_at_s = outlook, self._clock()

    def tick(self) -> None:
        """Draw anew, or give a sign of life."""
        if self._live is not None:
            self._live.update(self._render())
        elif self._running and self._clock() - self._said_at_s >= _SIGN_OF_LIFE_S:
            doing = [
                f"{running.spec.label} {self._duration_of(running)} ({self._stage(running)})"
                for running in list(self._running.values())[:_SHOWN_DEVICES]
            ]
            self._say("running " + "; ".join([*doing, *filter(None, (self._best(), self._time_left()))]))

    def _say(self, line: str) -> None:
        # Not markup: an engine's own line may hold square brackets.
        self._said_at_s = self._clock()
        self._console.print(Text(legible(line)), soft_wrap=True)

    def _is_new(self, result: TrialResult) -> bool:
        """Whether this reason, numbers aside, still deserves a line of its own."""
        reason = str(result.failure_message)
        told = self._alike.setdefault(reasons.kind_of(reason), [])
        told.append(reason)
        return len(told) <= reasons.SHOWN

    @property
    def _done(self) -> int:
        """Trials that are over, of those planned; what a search proposes in vain does not count."""
        in_vain = max(self._counts["infeasible"] - self._refused, 0) if self._total is not None else 0
        return sum(self._counts.values()) - in_vain

    def _position(self) -> str:
        return f"[{self._done}/{self._total if self._total is not None else '?'}]"

    def _render(self) -> RenderableType:
        done = self._done
        bar = ProgressBar(total=max(self._total or done or 1, 1), completed=done, width=30)
        head = Table.grid(padding=(0, 1))
        head.add_row(
            bar,
            f"{done}/{self._total if self._total is not None else '?'}",
            f"running {len(self._running)}",
            f"failed {self._counts['failed']}",
            self._time_left(),
        )
        rows = Table.grid(padding=(0, 2))
        shown = list(self._running.values())[:_SHOWN_DEVICES]
        labels = differing([running.spec.label for running in shown])
        for running, label in zip(shown, labels, strict=True):
            rows.add_row(
                Text(device_label(running.placement)),
                Text(legible(label)),
                Text(legible(self._stage(running))),
                self._duration_of(running),
            )
        busy = sum(len(running.placement.devices) for running in self._running.values())
        if busy < self._devices:
            rows.add_row(f"{self._devices - busy} of {amount(self._devices, 'device')} idle", "", "", "")
        best = self._best()
        return Group(head, *([Text(best)] if best else []), rows)

    def _stage(self, running: _Running) -> str:
        return stages.read(Path(running.spec.folder)) or "begins"

    def _duration_of(self, running: _Running) -> str:
        return _duration(self._clock() - running.since_s)

    def _best(self) -> str:
        if self._outlook is None or self._outlook.value is None:
            return ""
        return f"best so far: {self._outlook.leader}: {self._outlook.value:.4g}"

    def _time_left(self) -> str:
        if self._outlook is not None and self._outlook.left_s is not None:
            left_s = self._outlook.left_s - (self._clock() - self._looked_at_s)
            is_late = left_s <= 0 and bool(self._running)
            return "longer than predicted" if is_late else f"about {_duration(max(left_s, 0.0))} left"
        if not self._durations_s or self._total is None:
            return ""
        left = max(self._total - self._done, 0)
        rounds = left / max(len(self._running), 1)
        return f"about {_duration(rounds * statistics.fmean(self._durations_s))} left"


def differing(labels: Sequence[str]) -> list[str]:
    """Shorten labels such as ``a=1 b=2`` to the knobs in which they differ, so that many fit on a screen."""
    parts = [label.split() for label in labels]
    if len(labels) < 2 or not all("=" in part for label in parts for part in label):
        return list(labels)
    common = set.intersection(*map(set, parts))
    short = [" ".join(part for part in label if part not in common) for label in parts]
    return [brief or label for brief, label in zip(short, labels, strict=True)]


def device_label(placement: Placement) -> str:
    """Write a block of devices: ``devices 0-3``."""
    first, last = placement.devices[0], placement.devices[-1]
    if len(placement.devices) == 1:
        return f"device {first}"
    is_run = last - first + 1 == len(placement.devices)
    return f"devices {first}-{last}" if is_run else f"devices {','.join(map(str, placement.devices))}"


def _headline(result: TrialResult) -> str:
    """Return the numbers of a trial in a few words: what its searches found, and its rates elsewhere."""
    found = [
        f"{BY_NAME[name].words} {m.metrics[name]:g}"
        for m in result.measurements
        for name in SEARCH_SLOS
        if m.metrics.get(name) is not None
    ]
    rates = [
        number_text(value)
        for m in result.measurements
        if m.load_point.search is None and (value := m.metrics.get("request_throughput_per_s")) is not None
    ]
    shown = [*found, *([f"{' / '.join(rates[:6])} requests/s"] if rates else [])]
    return f"{', '.join(shown) or 'no throughput'} ({result.provenance})"


def _short_answers(result: TrialResult) -> tuple[str, ...]:
    """Return of which load points answers are shorter than asked, and why, each once."""
    told = {
        measured.load_point.label: measured.short_answers_because
        for measured in result.measurements
        if measured.short_answers_because is not None
    }
    return tuple(f"{label}: {because}" for label, because in told.items())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

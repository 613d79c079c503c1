"""What a person sees while a sweep runs: one live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeper.legible import legible
from sweeper.records import Placement, TrialResult, TrialSpec, TrialState

_SHOWN_DEVICES = 16


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

    def __enter__(self) -> Display:
        """Start the live table where there is a terminal."""
        if self._console.is_terminal:
            self._live = Live(self._render(), console=self._console, refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """End the live table."""
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None

    def planned(self, *, total: int | None, done: int, refused: int) -> None:
        """The work is known."""
        self._total = total
        self._counts["stored"] = done
        parts = [f"{total if total is not None else '?'} trials"]
        if done:
            parts.append(f"{done} already in the store")
        if refused:
            parts.append(f"{refused} cannot run here")
        self._say("plan: " + ", ".join(parts))

    def started(self, spec: TrialSpec, placement: Placement) -> None:
        """A trial holds its devices and runs."""
        self._running[spec.key] = _Running(spec=spec, placement=placement, since_s=self._clock())
        if self._live is None:
            self._say(f"start   {spec.label}  on {device_label(placement)}")
        self.tick()

    def finished(self, result: TrialResult, *, will_retry: bool) -> None:
        """A trial ended."""
        running = self._running.pop(result.spec.key, None)
        took = "" if running is None else f" in {_duration(self._clock() - running.since_s)}"
        if running is not None and result.state is TrialState.COMPLETE:
            self._durations_s.append(self._clock() - running.since_s)
        if will_retry:
            self._say(f"again   {result.spec.label}: {result.failure_class}: {result.failure_message}")
            return
        self._counts[str(result.state)] = self._counts.get(str(result.state), 0) + 1
        if result.state is TrialState.COMPLETE:
            self._say(f"done    {self._position()} {result.spec.label}{took}: {_headline(result)}")
        else:
            reason = f"{result.failure_class}: " if result.failure_class else ""
            self._say(
                f"{result.state!s:<7} {self._position()} {result.spec.label}{took}: "
                f"{reason}{result.failure_message}"
            )
        self.tick()

    def tick(self) -> None:
        """Draw anew."""
        if self._live is not None:
            self._live.update(self._render())

    def _say(self, line: str) -> None:
        # Not markup: an engine's own line may hold square brackets.
        self._console.print(Text(legible(line)), soft_wrap=True)

    def _position(self) -> str:
        return f"[{sum(self._counts.values())}/{self._total if self._total is not None else '?'}]"

    def _render(self) -> RenderableType:
        done = sum(self._counts.values())
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
        for running in list(self._running.values())[:_SHOWN_DEVICES]:
            rows.add_row(
                Text(device_label(running.placement)),
                Text(legible(running.spec.label)),
                _duration(self._clock() - running.since_s),
            )
        busy = sum(len(running.placement.devices) for running in self._running.values())
        if busy < self._devices:
            rows.add_row(f"{self._devices - busy} of {self._devices} devices idle", "", "")
        return Group(head, rows)

    def _time_left(self) -> str:
        if not self._durations_s or self._total is None:
            return ""
        left = max(self._total - sum(self._counts.values()), 0)
        rounds = left / max(len(self._running), 1)
        return f"about {_duration(rounds * statistics.fmean(self._durations_s))} left"


def device_label(placement: Placement) -> str:
    """Write a block of devices: ``devices 0-3``."""
    first, last = placement.devices[0], placement.devices[-1]
    if len(placement.devices) == 1:
        return f"device {first}"
    is_run = last - first + 1 == len(placement.devices)
    return f"devices {first}-{last}" if is_run else f"devices {','.join(map(str, placement.devices))}"


def _headline(result: TrialResult) -> str:
    rates = [
        f"{value:.2f}"
        for m in result.measurements
        if (value := m.metrics.get("request_throughput_per_s")) is not None
    ]
    suffix = f" ({result.provenance})"
    return f"{' / '.join(rates[:6])} requests/s{suffix}" if rates else f"no throughput{suffix}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""What thousands of trials cost: to store, to take up again, to report on and to draw.

    python benchmarks/scale.py                                   # 100, 1,000 and 10,000 trials of one row
    python benchmarks/scale.py --trials 1000 --rows 12 --phases store report

One simulated trial is planned and run; its result stands for all others, each with a setting and numbers of
its own, so that storing is timed and not the model. Every phase runs in a process of its own on the study
that the phases before it left, in the order in which they are listed:

* ``store``: the trials are appended one by one by the code that a sweep calls, which compacts meanwhile.
* ``compaction``: what is left in small parts goes into a larger file, as when a study ends.
* ``resume``: what a sweep asks of the store before its first trial, where nothing is left to run.
* ``report``: ``report.md``, ``report.html`` and the charts.
* ``figures``: the charts alone.

Printed are wall seconds of the phase and CPU seconds of its process (imports are not counted), the most
memory that its process held, and the bytes that the results take on disk when it has ended.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sweeper import config, topology
from sweeper.config import Settings
from sweeper.executors.inline import InlineExecutor
from sweeper.goals.termination import Termination
from sweeper.plan.planner import Planner
from sweeper.prepare.planner import planner_of
from sweeper.records import Placement, Platform, TrialResult
from sweeper.store.store import Store
from sweeper.store.study_folder import StudyFolder
from sweeper.sweep.ledger import Ledger
from sweeper.sweep.terms import Terms

SIZES = (100, 1000, 10_000)
"""Trials, where nobody asks for other numbers: costs that are not in proportion show in the ratios."""

NAME = "scale"

_KNOB = "max_num_seqs"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A study of one size in a folder.

    Attributes:
        outputs: The folder of its study folder.
        trials: How many it has.
        rows: Rows of each trial: so many load points.
    """

    outputs: Path
    trials: int
    rows: int

    @property
    def settings(self) -> Settings:
        """What a user would have asked for: a grid of so many values."""
        points = ",".join(f"{{request_rate_per_s: {number + 1}}}" for number in range(self.rows))
        asked = [
            "platform=simulated", f"study.name={NAME}", f"study.outputs={self.outputs}", "search.method=grid",
            "workload.dataset=random", "workload.num_prompts=2", "workload.input_len=8",
            "workload.output_len=2", f"workload.points=[{points}]", "executor=inline",
            f"space.knobs.{_KNOB}={{choices: [{', '.join(str(value) for value in range(1, 3))}]}}",
        ]  # fmt: skip
        return config.settings(config.compose_run(asked), platform=Platform.SIMULATED)

    @property
    def store(self) -> Store:
        """Its results."""
        return Store(self.outputs / NAME)

    def planner(self, settings: Settings) -> Planner:
        """Return the planner of its space on a modelled node."""
        return planner_of(settings, topology.modelled_mi300x())

    def results(self) -> Iterator[TrialResult]:
        """Run one trial, and return it once for each value of a knob, with numbers that differ."""
        planner = self.planner(self.settings)
        first = _run(planner)
        for number in range(self.trials):
            share = 1 + (number * 7919 % self.trials) / self.trials
            spec = replace(first.spec, assignment={**first.spec.assignment, _KNOB: number + 1})
            measured = tuple(
                replace(
                    one,
                    metrics={
                        name: value * share if isinstance(value, float) and value % 1 else value
                        for name, value in one.metrics.items()
                    },
                )
                for one in first.measurements
            )
            yield replace(first, spec=spec, measurements=measured)

    def describe(self) -> None:
        """Write ``study.json``."""
        settings = self.settings
        planner = self.planner(settings)
        with StudyFolder(self.outputs / NAME) as folder:
            folder.describe(
                name=settings.name, experiment=settings.experiment, question=settings.question,
                source=settings.source, platform=settings.platform, platform_reason="asked for",
                node=planner.node, engine_release=planner.engine.release, model=planner.model,
                space=planner.space, objectives=settings.objectives, constraints=settings.constraints,
                load_points=settings.load_points, resolved=settings.resolved,
            )  # fmt: skip


def _run(planner: Planner) -> TrialResult:
    executor = InlineExecutor(max_parallel=1)
    try:
        spec = planner.grid()[0].spec
        devices = tuple(range(spec.devices_wanted))
        executor.submit(
            spec, Placement(node="modelled", devices=devices, parents=devices, partition_mode="SPX")
        )
        return executor.wait(600)[0][1]
    finally:
        executor.close()


# ---- phases ----


def store(case: Case) -> Callable[[], object]:
    """Append every trial."""
    case.describe()
    results, kept = list(case.results()), case.store

    def append() -> None:
        kept.align([_KNOB])
        for result in results:
            kept.append(result, queued_s=0.0, knobs=[_KNOB])

    return append


def compaction(case: Case) -> Callable[[], object]:
    """Bring together what is left in small parts."""
    return lambda: case.store.compact(least=2)


def resume(case: Case) -> Callable[[], object]:
    """Ask the store what a sweep asks before its first trial."""
    settings = case.settings
    planner = case.planner(settings)
    terms = Terms(objectives=settings.objectives, method=settings.method, endings=Termination())

    def take_up() -> None:
        kept = case.store
        kept.set_aside()
        ledger = Ledger(kept, planner, terms)
        ledger.align()
        ledger.learn_stored()

    return take_up


def report(case: Case) -> Callable[[], object]:
    """Write the report, its page and its charts, as when a study ends."""
    from analysis import report as reports

    return lambda: reports.write(case.outputs / NAME)


def figures(case: Case) -> Callable[[], object]:
    """Draw the charts."""
    from analysis import report as reports
    from analysis.study import Study

    return lambda: reports.draw(Study.load(case.outputs / NAME))


PHASES: dict[str, Callable[[Case], Callable[[], object]]] = {
    "store": store,
    "compaction": compaction,
    "resume": resume,
    "report": report,
    "figures": figures,
}
"""What is timed, by name: each gets a case, prepares what is not timed, and returns what is."""


# ---- measuring ----


def timed(name: str, case: Case) -> tuple[float, float, float]:
    """Run a phase in this process; return its seconds, those of CPU, and the most MiB it has held."""
    work = PHASES[name](case)
    began, began_cpu = time.perf_counter(), time.process_time()
    work()
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    return took_s, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def stored_bytes(case: Case) -> int:
    """Return the size of the results."""
    total = 0
    for path in (case.outputs / NAME / "measurements").glob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total


def main() -> None:
    """Print a row for each phase at each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rows", type=int, default=1, help="load points, so rows, of each trial")
    parser.add_argument("--phases", nargs="+", choices=list(PHASES), default=list(PHASES))
    parser.add_argument(
        "--outputs", type=Path, help="keep the studies there; a temporary folder unless given"
    )
    options = parser.parse_args()
    columns = ("phase", "trials", "rows", "seconds", "CPU s", "MiB held", "bytes a row")
    print(f"| {' | '.join(columns)} |\n|---{'|---:' * (len(columns) - 1)}|")
    with tempfile.TemporaryDirectory() as scratch:
        for trials in options.trials:
            outputs = (options.outputs or Path(scratch)) / f"{trials}x{options.rows}"
            case = Case(outputs=outputs, trials=trials, rows=options.rows)
            for name in options.phases:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    took_s, cpu_s, held_mib = pool.apply(timed, (name, case))
                rows = trials * options.rows
                cells = (
                    *(name, f"{trials:,}", f"{rows:,}", f"{took_s:.2f}", f"{cpu_s:.2f}"),
                    *(f"{held_mib:.0f}", f"{stored_bytes(case) / rows:,.0f}"),
                )
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

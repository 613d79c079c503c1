"""What thousands of trials cost beside storing them: to plan, to drive, to hand to Ray, to show.

    python benchmarks/scale_plan.py [plan] [grid] [search] [ray] [dashboard] [--trials 500 2000]

* ``plan``: ``plan=true`` of a grid of so many points as a process of its own, imports included; last one of
  100,000 points, which is above ``search.grid_limit``.
* ``grid``: a grid of simulated trials of two tiny requests, by the loop that a sweep runs; no report.
* ``search``: the same of ``tpe`` and ``guided``, 300 trials at most.
* ``ray``: trials one after another through a Ray of our own: what the driver spends to submit one, from there
  until it has begun in its worker, and from its end until the driver has its result.
* ``dashboard``: a grid in Optuna's database; seconds from the start of ``dashboard`` until its page answers,
  until the list of studies, and until the study with all of its trials.

CPU seconds are of the process; other programs on the machine lengthen them less than they lengthen wall time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from sweeper import config, topology
from sweeper.cli.ledger import ledger_of
from sweeper.config import Settings
from sweeper.executors import Executor
from sweeper.executors.inline import InlineExecutor
from sweeper.prepare.planner import planner_of, scheduler_of
from sweeper.processes.ports import ReservedPort
from sweeper.records import Placement, Platform, TrialResult, TrialSpec
from sweeper.schedule.allocator import Allocator
from sweeper.search import Search, storage_url
from sweeper.sweep.outlook import Outlook
from sweeper.sweep.sweep import Sweep

_ASKED = (
    *("platform=simulated", "executor=inline", "engine.release=0.6.2", "model=llama_3_1_8b_instruct"),
    *("knobs.max_model_len=8192", "workload=random", "workload.num_prompts=2", "workload.input_len=16"),
    *("workload.output_len=4", "study.name=scale"),
)
_MOST_SEARCHED = 300
_RAY_TRIALS = 50


class _Silent:
    def planned(self, *, total: int | None, done: int, refused: int) -> None: ...

    def started(self, spec: TrialSpec, placement: Placement) -> None: ...

    def finished(self, result: TrialResult, *, will_retry: bool) -> None: ...

    def tick(self) -> None: ...


def main() -> None:
    """Measure what is asked for, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("phases", nargs="*", default=[], help=f"of {', '.join(_PHASES)}; default: all")
    parser.add_argument("--trials", type=int, nargs="+", default=[500, 2000])
    options = parser.parse_args()
    unknown = set(options.phases) - set(_PHASES)
    if unknown:
        parser.error(f"phases: {', '.join(sorted(unknown))} is none; expected some of {', '.join(_PHASES)}")
    print(f"load average {os.getloadavg()[0]:.1f}")
    for phase in options.phases or _PHASES:
        _PHASES[phase](options.trials)


def plan(sizes: Sequence[int]) -> None:
    """Time a plan of each size, and of a grid that is too large."""
    for points in (*sizes, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            words = [*_asked(folder), "plan=true", *_grid(points)]
            before, began_s = os.times(), time.perf_counter()
            subprocess.run([sys.executable, "-m", "sweeper", *words], stdout=subprocess.DEVNULL, check=True)
            wall_s, after = time.perf_counter() - began_s, os.times()
        cpu_s = after.children_user - before.children_user + after.children_system - before.children_system
        _tell(f"plan of {points:,} points", wall_s, cpu_s)


def grid(sizes: Sequence[int]) -> None:
    """Time a grid of each size, per trial."""
    for trials in sizes:
        with tempfile.TemporaryDirectory() as folder:
            _drive(_settings(folder, *_grid(trials)), f"grid of {trials:,}")


def search(sizes: Sequence[int]) -> None:
    """Time searches, per trial."""
    trials = min(*sizes, _MOST_SEARCHED)
    for method in ("tpe", "guided"):
        with tempfile.TemporaryDirectory() as folder:
            words = [f"search={method}", f"search.trials={trials}", *_grid(10_000)]
            _drive(_settings(folder, *words), f"search={method}, {trials:,}")


def ray(sizes: Sequence[int]) -> None:
    """Time how trials get to a worker of Ray and back."""
    from sweeper.executors.private_ray import PrivateRay
    from sweeper.executors.ray import RayExecutor

    trials = min(*sizes, _RAY_TRIALS)
    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(folder, *_grid(trials + 1))
        node = topology.modelled_mi300x()
        specs = [job.spec for job in planner_of(settings, node).grid()]
        began_s = time.perf_counter()
        session = PrivateRay(devices=len(node.devices), log_path=Path(folder) / "ray.log")
        print(f"ray          started in {time.perf_counter() - began_s:.2f} s", flush=True)
        with closing(RayExecutor(session)) as executor:
            spans = [_through(executor, spec) for spec in specs]
    # The first one starts the worker that the others find.
    print(f"ray          first trial: {_spans_text(spans[:1])}", flush=True)
    print(f"ray          {trials} more, medians: {_spans_text(spans[1:])}", flush=True)


def _through(executor: Executor, spec: TrialSpec) -> tuple[float, float, float]:
    """Run a trial; return the seconds of submitting, until it began, and from its end until it was here."""
    placement = Allocator(topology.modelled_mi300x()).acquire(spec.devices_wanted)
    assert placement is not None
    began = time.time()
    executor.submit(spec, placement)
    submitted = time.time()
    while not (done := executor.wait(1.0)):
        pass
    here, result = time.time(), done[0][1]
    return submitted - began, result.started_at - submitted, here - result.ended_at


def _spans_text(spans: Sequence[tuple[float, float, float]]) -> str:
    names = ("submit", "start", "return")
    middles = [1000 * statistics.median(each) for each in zip(*spans, strict=True)]
    told = ", ".join(f"{name} {each:.1f} ms" for name, each in zip(names, middles, strict=True))
    return f"{told}, together {sum(middles):.1f} ms"


def dashboard(sizes: Sequence[int]) -> None:
    """Time the first answers of the dashboard about a study of each size."""
    for trials in sizes:
        with tempfile.TemporaryDirectory() as folder:
            settings = _settings(folder, *_grid(trials))
            began_s = time.perf_counter()
            with closing(_search(settings)) as study:
                for number, point in enumerate(settings.space.grid()):
                    told = {"key": f"{number:016x}", "mean_ttft_ms": 1.0 + number}
                    study.tell(study.begin(point).number, [float(number % 97)], told)
            _tell(f"database of {trials:,}", time.perf_counter() - began_s)
            _open_dashboard(Path(folder), trials)


def _open_dashboard(outputs: Path, trials: int) -> None:
    reserved = ReservedPort()
    port = reserved.port
    reserved.release()
    command = [sys.executable, "-m", "sweeper", "dashboard", str(outputs), "--port", str(port)]
    began_s = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for what, path in (("page", "/"), ("studies", "/api/studies"), ("study", "/api/studies/1")):
            size = len(_asked_until_it_answers(f"http://127.0.0.1:{port}{path}"))
            _tell(
                f"dashboard, {trials:,} trials: {what} ({size / 2**20:.1f} MiB)",
                time.perf_counter() - began_s,
            )
            began_s = time.perf_counter()
    finally:
        server.terminate()
        server.wait()


def _asked_until_it_answers(url: str) -> bytes:
    while True:
        try:
            with urllib.request.urlopen(url, timeout=300) as answer:
                return bytes(answer.read())
        except urllib.error.URLError:
            # It does not listen yet.
            time.sleep(0.05)


def _drive(settings: Settings, what: str) -> None:
    node = topology.modelled_mi300x()
    planner = planner_of(settings, node)
    with closing(_search(settings)) as study:
        executor = InlineExecutor(max_parallel=len(node.devices))
        with closing(executor):
            sweep = Sweep(
                planner=planner,
                search=study,
                ledger=ledger_of(settings, planner),
                executor=executor,
                scheduler=scheduler_of(settings, [node]),
                observer=_Silent(),
                show_outlook=_unseen,
            )
            began_s, cpu_s = time.perf_counter(), time.process_time()
            outcome = sweep.run(stop=lambda: False)
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    _tell(what, wall_s, cpu_s, trials=outcome.measured_now)


def _unseen(outlook: Outlook) -> None:
    """Show nothing."""


def _search(settings: Settings) -> Search:
    return Search(
        storage=storage_url(settings.outputs),
        name=settings.name,
        space=settings.space,
        objectives=settings.objectives,
        constraints=settings.constraints,
        method=settings.method,
        seed=settings.seed,
    )


def _asked(folder: str) -> list[str]:
    return [*_ASKED, f"study.outputs={folder}"]


def _settings(folder: str, *words: str) -> Settings:
    composed = config.compose_run([*_asked(folder), *words])
    return config.settings(composed, platform=Platform.SIMULATED)


def _grid(points: int) -> list[str]:
    """Return words for a grid of so many points, in columns of at most a hundred."""
    rows = min(points, 100)
    columns = max(points // rows, 1)
    return [
        f"space.knobs.max_num_seqs={{low: 1, high: {rows}, step: 1}}",
        f"space.knobs.max_num_batched_tokens={{low: 8192, high: {8192 + 20 * (columns - 1)}, step: 20}}",
    ]


def _tell(what: str, wall_s: float, cpu_s: float | None = None, *, trials: int = 0) -> None:
    cpu = "" if cpu_s is None else f", CPU {cpu_s:.2f} s"
    each = ""
    if trials:
        each = f"; per trial {1000 * wall_s / trials:.1f} ms"
        each += "" if cpu_s is None else f", CPU {1000 * cpu_s / trials:.1f} ms"
    print(f"{what:12} {wall_s:.2f} s{cpu}{each}", flush=True)


_PHASES: dict[str, Callable[[Sequence[int]], None]] = {
    "plan": plan,
    "grid": grid,
    "search": search,
    "ray": ray,
    "dashboard": dashboard,
}


if __name__ == "__main__":
    main()

"""How many trials each search needs until it has measured a setting within 1 % of the best.

The space is that of ``+experiment=tune_70b_throughput``. The truth is the simulated platform: every valid
point is served once, so that the true best is known (``--table`` keeps that in a file, which is made when
it is not there or is of another space; about half a minute on one core). A trial gives the true value
times a factor with a standard deviation of 1 %, as a real repetition would differ, and finds the best
when its *true* value is at least 0.99 of the largest one.

The ranking that ``guided`` is given is never the truth's own table. It is made with half of the requests
and another seed, so with other prompts, without the noise; in "right" with the truth's calibration, in
"wrong" with each of its parameters multiplied by 0.7 or 1.3, drawn at random, five draws. As a control,
"reversed" expects the worst of the best. ``guided`` and ``tpe`` begin with the engine's defaults and, as
in the product, ``guided`` with the predicted best after them; ``random`` has no start.

    python benchmarks/search_efficiency.py [--seeds 20] [--table /tmp/search_efficiency.json]

The same proposer as in a study is asked, one trial at a time, without a database.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper import config, knobs, topology
from sweeper.plan.planner import Job, Planner
from sweeper.prepare.estimate import simulated_estimate
from sweeper.prepare.planner import planner_of
from sweeper.records import Platform
from sweeper.search.candidates import identity
from sweeper.search.distributions import distributions, to_optuna
from sweeper.search.prior import Estimate
from sweeper.search.proposer import Proposer
from sweeper.search.starts import starting_points
from sweeper.simulation.costs import Calibration
from sweeper.simulation.device import USUAL_DEVICE
from sweeper.space.space import Point, Space

PROMPTS = 300
RANKED_PROMPTS = 150
NOISE = 0.01
CLOSE_ENOUGH = 0.99
ERROR = 0.3
DRAWS = 5
MOST_TRIALS = 200

_NOT_PERTURBED = {"restart_noise", "run_noise", "load_bytes_per_s", "boot_s"}

Table = dict[str, float]


def make_planner(calibration: dict[str, float]) -> Planner:
    """Give the planner of the experiment on a modelled node, with another calibration."""
    overrides = ["+experiment=tune_70b_throughput", "platform=simulated"]
    composed = config.compose_run(overrides, config_dir=None)
    settings = config.settings(composed, platform=Platform.SIMULATED)
    planner = planner_of(settings, topology.modelled_mi300x("SPX", "NPS1"))
    return replace(planner, calibration=calibration)


def expectation(planner: Planner, *, prompts: int, seed: int) -> Estimate:
    """Give what the simulated platform says under a load of so many requests."""
    settings = config.settings(
        config.compose_run(["+experiment=tune_70b_throughput", "platform=simulated"], config_dir=None),
        platform=Platform.SIMULATED,
    )

    def job(point: Point) -> Job:
        planned = planner.job(point)
        loads = tuple(
            replace(load, num_prompts=prompts, client_seed=seed) for load in planned.spec.load_points
        )
        return replace(planned, spec=replace(planned.spec, load_points=loads))

    return simulated_estimate(job, node=planner.node, device=USUAL_DEVICE, objectives=settings.objectives)


def table_of(estimate: Estimate, points: Sequence[Point]) -> Table:
    """Serve every point once; those that the model refuses are left out."""
    found = {identity(point): estimate(point) for point in points}
    return {key: values[0] for key, values in found.items() if values is not None}


def calibrations(draws: int) -> dict[str, dict[str, float]]:
    """Give the calibration of each ranking by name; an empty one is the truth's."""
    names = [field.name for field in fields(Calibration) if field.name not in _NOT_PERTURBED]
    found: dict[str, dict[str, float]] = {"right": {}}
    for draw in range(draws):
        rng = random.Random(draw)
        usual = Calibration()
        found[f"wrong {draw}"] = {
            name: getattr(usual, name) * rng.choice((1 - ERROR, 1 + ERROR)) for name in names
        }
    return found


def tables(path: Path, points: Sequence[Point]) -> dict[str, Table]:
    """Read the tables of truth and rankings, or make them."""
    if path.exists():
        kept: dict[str, Table] = json.loads(path.read_text(encoding="utf-8"))
        if kept["truth"].keys() <= {identity(point) for point in points}:
            return kept
    made = {"truth": table_of(expectation(make_planner({}), prompts=PROMPTS, seed=1), points)}
    for name, calibration in calibrations(DRAWS).items():
        estimate = expectation(make_planner(calibration), prompts=RANKED_PROMPTS, seed=0)
        made[name] = table_of(estimate, points)
    path.write_text(json.dumps(made), encoding="utf-8")
    return made


def trials_needed(
    space: Space,
    truth: Table,
    *,
    method: str,
    seed: int,
    estimate: Estimate | None,
    defaults: dict[str, object],
) -> int:
    """Search until a trial's true value is close enough to the best; count the trials."""
    proposer = Proposer(
        space=space, directions=[StudyDirection.MAXIMIZE], method=method, seed=seed, estimate=estimate
    )
    noise = np.random.default_rng([seed, 1])
    goal = CLOSE_ENOUGH * max(truth.values())
    starts = (
        starting_points(
            space, defaults=defaults, ranking=lambda: proposer.ranking, pool=lambda: proposer.pool
        )
        if method != "random"
        else iter(())
    )
    told: list[FrozenTrial] = []
    while len(told) < MOST_TRIALS:
        point = next(starts, None)
        if point is None:
            proposal = proposer.propose(told)
            if proposal is None:
                break
            point = proposal.point
        value = truth.get(identity(point))
        told.append(finished(space, point, value, noise))
        if value is not None and value >= goal:
            break
    return len(told)


def finished(space: Space, point: Point, value: float | None, noise: np.random.Generator) -> FrozenTrial:
    """Give the trial as a study would remember it."""
    params = to_optuna(point.choices)
    known = distributions(space)
    return create_trial(
        state=TrialState.FAIL if value is None else TrialState.COMPLETE,
        value=None if value is None else value * float(np.exp(noise.normal(0, NOISE))),
        params=params,
        distributions={name: known[name] for name in params},
    )


def summary(counts: Sequence[int]) -> str:
    """Give median and quartiles."""
    low, middle, high = statistics.quantiles(counts, n=4)
    return f"{middle:6.1f} {low:6.1f} {high:6.1f} {max(counts):6d}"


def main() -> None:
    """Run the searches and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--table", type=Path, default=Path("/tmp/search_efficiency.json"))
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    planner = make_planner({})
    space = planner.space
    points = [point for point in space.grid() if space.broken_rule(point.assignment) is None]
    known = tables(options.table, points)
    truth = known.pop("truth")
    close = sum(value >= CLOSE_ENOUGH * max(truth.values()) for value in truth.values())
    print(
        f"{len(truth)} settings, {close} of them within 1 % of the best, {max(truth.values()):.2f} requests/s"
    )
    known["reversed"] = {key: -value for key, value in known["right"].items()}
    for name, table in known.items():
        print(f"rank correlation of '{name}' with the truth: {correlation(table, truth):.2f}")
    defaults = knobs.defaults(planner.engine.release, assignment=space.base)
    run: Callable[..., int] = partial(trials_needed, space, truth, defaults=defaults)
    seeds = range(options.seeds)
    print(
        f"\n{'search':28s} {'median':>6s} {'25 %':>6s} {'75 %':>6s} {'most':>6s}   trials to 99 % of the best"
    )
    for method in ("random", "tpe", "guided"):
        counts = [run(method=method, seed=seed, estimate=None) for seed in seeds]
        name = "guided, without a ranking" if method == "guided" else method
        print(f"{name:28s} {summary(counts)}", flush=True)
    pooled: list[int] = []
    for name, table in known.items():
        estimate = partial(_look_up, table)
        counts = [run(method="guided", seed=seed, estimate=estimate) for seed in seeds]
        pooled += counts if name.startswith("wrong") else []
        print(f"{'guided, ranking ' + name:28s} {summary(counts)}", flush=True)
    print(f"{'guided, all wrong rankings':28s} {summary(pooled)}")


def _look_up(table: Table, point: Point) -> list[float] | None:
    value = table.get(identity(point))
    return None if value is None else [value]


def correlation(table: Table, truth: Table) -> float:
    """Give Spearman's rank correlation of two tables."""
    keys = [key for key in truth if key in table]
    ranks = [np.argsort(np.argsort([values[key] for key in keys])) for values in (table, truth)]
    return float(np.corrcoef(ranks)[0, 1])


if __name__ == "__main__":
    main()

"""Does a search lose or repeat anything when its driver is killed three times on the way?

Starts a search, ends its driver with kill -9 after 2, 6 and 10 further results, starts the same command again
each time, and lets it end. Then it counts: trials of the budget, assignments measured more than once, and
whether the study in the database holds what the result store holds. Exit code 0 says that all is there.

    python benchmarks/killed_search.py platform=simulated executor=inline     # minutes
    python benchmarks/killed_search.py platform=cpu repeats=1                 # the real vLLM, CPU build
    python benchmarks/killed_search.py experiment=tune_70b_slo platform=mi300x engine.python=...

The verdict of the winner against the default, from restarts, comes with ``search.finalists=1
search.final_repeats=3`` among the arguments;
their trials are not of the budget and are left out of the count.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import yaml
from optuna.trial import TrialState

from sweeper.search import storage_url
from sweeper.store.store import Store

KILLED_AFTER = (2, 6, 10)
"""Results in the store at which the driver is killed."""

_POLL_S = 0.1


def main(arguments: list[str]) -> int:
    """Run the study, killing it on the way, and print what was found."""
    experiment = next((a.split("=", 1)[1] for a in arguments if a.startswith("experiment=")), "tune_cpu")
    overrides = [argument for argument in arguments if not argument.startswith("experiment=")]
    outputs = Path(tempfile.mkdtemp(prefix="sweeper-killed-"))
    command = [sys.executable, "-m", "sweeper", f"+experiment={experiment}", f"study.outputs={outputs}"]
    command += overrides
    name, budget = settings_of(command)
    print(f"{name}: {budget} trials; its output: {outputs / 'driver.log'}")
    with (outputs / "driver.log").open("a", encoding="utf-8") as log:
        for results in KILLED_AFTER:
            print(kill_after(results, command, outputs / name, log=log.fileno()))
        code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    print(f"then left alone: exit code {code}")
    return report(outputs, name, budget=budget)


def settings_of(command: list[str]) -> tuple[str, int]:
    """Give the name of the study and its budget of trials, as the command itself composes them."""
    shown = subprocess.run([*command, "--cfg", "job"], capture_output=True, text=True, check=True).stdout
    composed = yaml.safe_load(shown)
    study, platform = composed["study"], composed["platform"]["name"]
    return study["name"] or f"{study['experiment']}-{platform}", int(composed["search"]["trials"])


def kill_after(results: int, command: list[str], folder: Path, *, log: int) -> str:
    """Start the driver and kill it once so many results are stored; say what was seen."""
    driver = subprocess.Popen(command, stdout=log, stderr=log)
    parts = folder / "measurements"
    while driver.poll() is None and len(list(parts.glob("*.parquet"))) < results:
        time.sleep(_POLL_S)
    if driver.poll() is not None:
        return f"ended by itself with {driver.returncode} before {results} results"
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    return f"killed with {len(list(parts.glob('*.parquet')))} results stored"


def report(outputs: Path, name: str, *, budget: int) -> int:
    """Compare store, budget and database; print it, and give 0 where all agrees."""
    frame = Store(outputs / name).read()
    trials = frame[frame["role"].isna()].drop_duplicates(["trial_key", "attempt"])
    spent = trials[trials["state"].isin(["complete", "failed", "skipped"])]
    complete = trials[trials["state"] == "complete"]
    study = optuna.load_study(study_name=name, storage=storage_url(outputs))
    told = {t.user_attrs.get("key") for t in study.trials if t.state is TrialState.COMPLETE}
    left = [t for t in study.trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    again = int((complete["trial_key"].value_counts() > 1).sum())
    checks = {
        f"trials spent of {budget}": (spent["trial_key"].nunique(), budget),
        "assignments measured more than once": (again, 0),
        "complete in the store and not told to the study": (len(set(complete["trial_key"]) - told), 0),
        "told to the study and not complete in the store": (len(told - set(complete["trial_key"])), 0),
        "left running or waiting in the study": (len(left), 0),
    }
    for what, (seen, wanted) in checks.items():
        print(f"{'ok ' if seen == wanted else 'NOT'} {what}: {seen}")
    counts = ", ".join(f"{count} {state}" for state, count in trials["state"].value_counts().items())
    print(f"trials: {counts}; interrupted in the study: {sum(_is_cut_off(t) for t in study.trials)}")
    return 0 if all(seen == wanted for seen, wanted in checks.values()) else 1


def _is_cut_off(trial: optuna.trial.FrozenTrial) -> bool:
    return bool(trial.user_attrs.get("interrupted"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

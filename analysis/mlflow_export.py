"""A study in MLflow: an experiment for the study, a run for each trial, with knobs, numbers and provenance.

The package is an extra (``mi300x-sweeper[mlflow]``). A trial that an earlier export wrote is not written
twice, so a study may be exported while it grows. Simulated and measured trials are told apart by a tag and by
the name of the experiment.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import load_names, tables
from analysis.study import Study
from sweeper.errors import ConfigError, first_line
from sweeper.records.derived import WORKED_OUT
from sweeper.records.goal import load_text
from sweeper.records.metrics import METRIC_NAMES
from sweeper.text.confidential import masked

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_KNOB = "knob."
_TRIAL, _ATTEMPT = "sweeper.trial", "sweeper.attempt"
_TAGS = ("provenance", "platform", "node", "gpu_name", "model", "version.vllm", "failure_class")
_LONGEST_VALUE = 500
_STATES = {"complete": "FINISHED", "failed": "FAILED", "infeasible": "FAILED", "skipped": "KILLED"}


def write(study: Study, *, tracking: str) -> tuple[int, int]:
    """Write the trials of a study that MLflow does not have yet.

    Args:
        study: Whose trials are written, each by its latest attempt.
        tracking: URL of MLflow's tracking, such as ``sqlite:///mlflow.db`` or ``http://127.0.0.1:5000``.

    Returns:
        How many runs were written, and how many were there already.

    Raises:
        ConfigError: MLflow is not installed, or its tracking cannot be reached or does not take a run.
    """
    with warnings.catch_warnings():
        # MLflow declares its tables in a way that newer SQLAlchemy warns of; its users cannot change that.
        warnings.simplefilter("ignore", DeprecationWarning)
        make = _client()
        from mlflow.exceptions import MlflowException

        try:
            return _written(make(tracking_uri=tracking), study)
        except (MlflowException, OSError) as exc:
            raise ConfigError(
                f"--tracking: {masked(tracking)} did not take the study ({first_line(exc)}); expected a URL "
                "of MLflow's tracking that can be reached. Start it, or name a file: sqlite:///mlflow.db."
            ) from exc


def _written(client: MlflowClient, study: Study) -> tuple[int, int]:
    experiment = _experiment(client, study)
    known = _known(client, experiment)
    rows = tables.settings(study.every_row, study.series)
    loads = load_texts(rows)
    written = 0
    for _, trial in rows.groupby("trial_key", sort=False):
        if (str(trial["trial_key"].iloc[0]), str(trial["attempt"].iloc[0])) not in known:
            _write_run(client, experiment, study, trial, loads)
            written += 1
    return written, len(known)


def _client() -> type[MlflowClient]:
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as exc:
        raise ConfigError(
            f"mlflow: needs the package '{exc.name}', which is not installed; expected the extra 'mlflow'. "
            'Run: pip install "mi300x-sweeper[mlflow]".'
        ) from exc
    return MlflowClient


def _experiment(client: MlflowClient, study: Study) -> str:
    name = f"{study.name} (simulated)" if study.is_simulated else study.name
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    told = {"question": study.question, "experiment": study.experiment, "source": study.source}
    return str(client.create_experiment(name, tags={key: str(text) for key, text in told.items() if text}))


def _known(client: MlflowClient, experiment: str) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        found |= {(run.data.tags.get(_TRIAL, ""), run.data.tags.get(_ATTEMPT, "")) for run in page}
        token = page.token
        if not token:
            return found


def _write_run(
    client: MlflowClient, experiment: str, study: Study, trial: pd.DataFrame, loads: Mapping[str, str]
) -> None:
    from mlflow.entities import Metric, Param

    first = trial.iloc[0]
    started, ended = (_milliseconds(first[name]) for name in ("started_at", "ended_at"))
    tags = {name: str(first[name]) for name in _TAGS if name in first and not pd.isna(first[name])}
    tags["sweeper.study"] = study.name
    run = client.create_run(
        experiment, start_time=started, tags=tags, run_name=str(first["setting"])[:_LONGEST_VALUE]
    )
    params = [
        Param(str(name).removeprefix(_KNOB), tables.value_text(value)[:_LONGEST_VALUE])
        for name, value in first.items()
        if str(name).startswith(_KNOB) and not pd.isna(value)
    ]
    when = ended or started or 0
    metrics = [Metric(name, value, when, 0) for name, value in numbers(trial, loads).items()]
    client.log_batch(run.info.run_id, metrics=metrics, params=params)
    client.set_terminated(
        run.info.run_id, status=_STATES.get(str(first["state"]), "FINISHED"), end_time=ended
    )
    # Last: a run that was cut off is not taken for one that is there.
    client.set_tag(run.info.run_id, _ATTEMPT, str(first["attempt"]))
    client.set_tag(run.info.run_id, _TRIAL, str(first["trial_key"]))


def load_texts(rows: pd.DataFrame) -> dict[str, str]:
    """Return how each load point of a study is called: by rate or users, where no two have the same.

    Args:
        rows: What ``tables.settings`` gave.
    """
    firsts = rows.drop_duplicates("load_point").to_dict("records")
    loads = {str(row["load_point"]): _load(row) for row in firsts}
    if len(set(loads.values())) == len(loads):
        return loads
    # They differ in something else, such as lengths or a second run: each would take another's place.
    return {str(row["load_point"]): f"at {load_names.load_point_text(row)}" for row in firsts}


def numbers(trial: pd.DataFrame, loads: Mapping[str, str]) -> dict[str, float]:
    """Return a trial's numbers by ``METRIC at LOAD``, means over restarts and repeats.

    Args:
        trial: Its rows, with ``load_point``.
        loads: What ``load_texts`` gave.
    """
    names = [name for name in (*METRIC_NAMES, *WORKED_OUT) if name in trial]
    return {
        _name(metric, loads[str(point)]): float(value)
        for point, rows in trial.groupby("load_point", sort=False)
        for metric, value in rows[names]
        .apply(pd.to_numeric, errors="coerce")
        .astype("float64")
        .mean()
        .items()
        if math.isfinite(value)
    }


def _load(row: tables.Row) -> str:
    rate, users = (row.get(name) for name in ("request_rate_per_s", "max_concurrency"))
    told = load_text(
        request_rate_per_s=None if pd.isna(rate) else float(rate),
        max_concurrency=None if pd.isna(users) else int(users),
    )
    return told or f"at {row['load_point']}"


def _name(metric: object, load: str) -> str:
    """Return a name that MLflow takes: what it does not take becomes a stroke."""
    return re.sub(r"[^\w\-. /]", "_", f"{metric} {load}")


def _milliseconds(moment: Any) -> int | None:
    return None if pd.isna(moment) else int(moment.timestamp() * 1000)

"""What is written of a trial at once is what Optuna's own calls write one by one."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.search import database
from sweeper.search.trial_rows import TrialRows, is_acceptable

DISTRIBUTIONS = {
    "seqs": IntDistribution(1, 512, log=True),
    "frac": FloatDistribution(0.5, 0.95),
    "dtype": CategoricalDistribution(("auto", "fp8", None)),
    "unused": IntDistribution(0, 1),
}
PARAMS = {"seqs": 64, "frac": 0.9, "dtype": "fp8"}
TOLD = {"key": "ab", "rate": 1.5, "notes": {"a": [1, 2]}, "choices": "cd"}


def opened(folder: Path) -> optuna.Study:
    folder.mkdir()
    storage = database.open_storage(database.file_url(folder / "optuna.db"))
    return optuna.create_study(storage=storage, study_name="s", directions=["maximize", "minimize"])


def begun_by_optuna(study: optuna.Study) -> int:
    template = create_trial(
        state=TrialState.RUNNING,
        params=PARAMS,
        distributions={name: DISTRIBUTIONS[name] for name in PARAMS},
        user_attrs={"choices": "first"},
        system_attrs={"note": [1]},
    )
    return study._storage.create_new_trial(study._study_id, template_trial=template)


def begun(rows: TrialRows) -> int:
    return rows.begin(PARAMS, DISTRIBUTIONS, user_attrs={"choices": "first"}, system_attrs={"note": [1]})


def content(trial: FrozenTrial) -> dict[str, object]:
    """Return all that a trial holds but its times."""
    names = ("number", "state", "values", "params", "distributions", "user_attrs", "system_attrs")
    return {name: getattr(trial, name) for name in (*names, "intermediate_values")}


@pytest.mark.parametrize("holds_back_s", [0.0, 1e6])
@pytest.mark.parametrize("values", [[1.5, float("inf")], None])
def test_trial_is_as_optuna_would_have_written_it(
    tmp_path: Path, values: list[float] | None, holds_back_s: float
) -> None:
    theirs, ours = opened(tmp_path / "theirs"), opened(tmp_path / "ours")
    state = TrialState.FAIL if values is None else TrialState.COMPLETE
    rows = TrialRows(ours._storage, ours._study_id, holds_back_s=holds_back_s)
    for turn in range(3):
        trial_id = begun_by_optuna(theirs)
        number = begun(rows)
        if turn < 2:
            # The third trial is written when it has ended already.
            rows.write()
            assert [content(t) for t in ours.trials] == [content(t) for t in theirs.trials]
        for name, value in TOLD.items():
            theirs._storage.set_trial_user_attr(trial_id, name, value)
        theirs._storage.set_trial_system_attr(trial_id, "constraints", [0.0, -1.0])
        theirs._storage.set_trial_state_values(trial_id, state, values)
        rows.end(number, state, values=values, user_attrs=TOLD, system_attrs={"constraints": [0.0, -1.0]})
    rows.write()
    assert [content(t) for t in ours.trials] == [content(t) for t in theirs.trials]
    assert [trial.number for trial in ours.trials] == [0, 1, 2]
    for trial, other in zip(ours.trials, theirs.trials, strict=True):
        assert trial.datetime_start is not None and other.datetime_start is not None
        assert trial.datetime_complete is not None
        assert abs((trial.datetime_start - other.datetime_start).total_seconds()) < 600
        assert trial.datetime_complete >= trial.datetime_start


def test_trial_that_was_stopped_early_is_as_optuna_would_have_written_it(tmp_path: Path) -> None:
    theirs = optuna.create_study(storage=database.open_storage(database.file_url(tmp_path / "theirs.db")))
    ours = optuna.create_study(storage=database.open_storage(database.file_url(tmp_path / "ours.db")))
    trial_id = begun_by_optuna(theirs)
    theirs._storage.set_trial_intermediate_value(trial_id, 1, 2.5)
    theirs.tell(0, state=TrialState.PRUNED)
    rows = TrialRows(ours._storage, ours._study_id)
    rows.end(begun(rows), TrialState.PRUNED, values=[2.5], so_far=2.5, user_attrs={}, system_attrs={})
    assert [content(t) for t in ours.trials] == [content(t) for t in theirs.trials]


def test_what_follows_within_a_moment_is_written_together(tmp_path: Path) -> None:
    study = opened(tmp_path / "ours")
    now = [100.0]
    rows = TrialRows(study._storage, study._study_id, holds_back_s=1.0, clock=lambda: now[0])

    def states() -> list[TrialState]:
        return [trial.state for trial in study.trials]

    def end(number: int) -> None:
        rows.end(number, TrialState.COMPLETE, values=[1.0, 2.0], user_attrs=TOLD, system_attrs={})

    # The first is written at once: of a trial that takes minutes the database knows from its beginning.
    assert begun(rows) == 0
    assert states() == [TrialState.RUNNING]
    assert [begun(rows), begun(rows)] == [1, 2]
    end(0)
    end(2)
    rows.write_if_due()
    assert states() == [TrialState.RUNNING]
    now[0] += 1.0
    rows.write_if_due()
    assert states() == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.COMPLETE]
    # Who asks for a trial of the database has it written first.
    assert begun(rows) == 3
    assert rows.trial_id(3) == study.trials[3]._trial_id


def test_trial_ends_once(tmp_path: Path) -> None:
    study = opened(tmp_path / "ours")
    rows = TrialRows(study._storage, study._study_id)
    number = begun(rows)
    rows.end(number, TrialState.FAIL, values=None, user_attrs={}, system_attrs={})
    with pytest.raises(ValueError, match="trial 0 of the study does not run"):
        rows.end(number, TrialState.COMPLETE, values=[1.0, 2.0], user_attrs=TOLD, system_attrs={})
    (trial,) = study.trials
    assert (trial.state, trial.values, trial.user_attrs) == (TrialState.FAIL, None, {"choices": "first"})
    with pytest.raises(KeyError, match="trial 7 is not in the study"):
        rows.trial_id(7)


def test_trials_of_two_studies_in_one_file_are_numbered_apart(tmp_path: Path) -> None:
    one = opened(tmp_path / "ours")
    other = optuna.create_study(storage=one._storage, study_name="other")
    first, second = (TrialRows(one._storage, study._study_id) for study in (one, other))
    assert [begun(rows) for rows in (first, second, first, second)] == [0, 0, 1, 1]
    # A trial that waits takes a number, too, and is found by it.
    one.enqueue_trial({"seqs": 3})
    assert begun(first) == 3
    assert first.trial_id(2) == one.trials[2]._trial_id


def test_a_number_that_is_none_is_no_value() -> None:
    assert is_acceptable([1.0, float("inf")])
    assert not is_acceptable([1.0, float("nan")])

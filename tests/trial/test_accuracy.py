"""A trial that asks its engine questions before the loads: the score, the gate, and lm-eval that fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from analysis import report, standings
from analysis.study import Study
from sweeper.goals.objectives import is_feasible, measured_rows, violations
from sweeper.intervals import paired_loss
from sweeper.records import Constraint, Questions, StopRule, TrialResult, TrialSpec, TrialState
from sweeper.store.losses import Default
from sweeper.store.store import Store
from sweeper.trial import trial
from tests.standin_lm_eval import write_lm_eval
from tests.standin_server import PLACEMENT, make_spec, never, write_interpreter

# As the stand-in answers the first of them.
RIGHT = {"question": "2+3=", "answer": "Paris, said after '2+3='"}
WRONG = {"question": "4+4\u2028=", "answer": "8"}


@pytest.fixture
def spec(tmp_path: Path) -> TrialSpec:
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (RIGHT, WRONG)), encoding="utf-8")
    asked = Questions(path=str(path), digest="abc", python=str(write_lm_eval(tmp_path / "bin")), version="0")
    return replace(
        make_spec(tmp_path / "outputs", write_interpreter(tmp_path / "bin"), stop_timeout_s=2.0),
        accuracy=asked,
    )


def run(spec: TrialSpec) -> TrialResult:
    return trial.run(spec, PLACEMENT, cancelled=never)


def test_score_is_in_every_row_and_a_bound_is_held_against_it(spec: TrialSpec, tmp_path: Path) -> None:
    result = run(spec)
    assert result.state is TrialState.COMPLETE, result.failure_message
    # One of two is right: 0.5, from 0.0945 to 0.9055 (half of it sqrt(0.5 * 0.5 * 1.92073 + 1.92073^2 / 4)
    # / 2.92073 = 0.405477).
    store = Store(tmp_path / "study")
    store.append(result, queued_s=0.0, knobs=[])
    (row,) = store.read().to_dict("records")
    assert (row["accuracy"], row["accuracy_questions"]) == (0.5, 2)
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx((0.094523, 0.905477), abs=1e-5)
    assert row["accuracy_of"] == "sums.jsonl abc, lm-eval 0"
    rows = measured_rows(result)
    for limit, is_kept in ((0.5, True), (0.6, False)):
        bound = Constraint(metric="accuracy", limit=limit, is_upper=False)
        assert is_feasible(violations([bound], rows)) is is_kept
        assert is_feasible(violations([bound], [row])) is is_kept


def test_setting_that_breaks_the_bound_is_not_loaded_where_trials_stop_early(spec: TrialSpec) -> None:
    bound = Constraint(metric="accuracy", limit=0.9, is_upper=False)
    result = run(replace(spec, stop_rule=StopRule(objectives=(), constraints=(bound,))))
    assert result.state is TrialState.SKIPPED
    assert result.failure_message == "breaks accuracy >= 0.9: 0.5, and may be 5 % off at most"
    assert result.measurements == () and result.accuracy["accuracy"] == 0.5


def test_lm_eval_that_leaves_no_score_fails_the_trial(
    spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_LM_EVAL", "die")
    result = run(spec)
    assert result.state is TrialState.FAILED
    assert str(result.failure_message).startswith(
        "accuracy: lm-eval ended with exit code 1 and left no score; last line: ConnectionError"
    )


def test_report_shows_the_score_with_its_interval(spec: TrialSpec, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    Store(folder).append(run(spec), queued_s=0.0, knobs=[])
    (folder / "study.json").write_text(json.dumps({"name": "study"}), encoding="utf-8")
    study = Study.load(folder)
    told = report.text(study, drawn=[])
    assert "| 50.0 % | 9.5 % to 90.5 % | 2 |" in told
    assert "Asked before the loads: sums.jsonl abc, lm-eval 0." in told


def answering(spec: TrialSpec, *, seqs: int | None, right: int) -> TrialSpec:
    """Return a trial that answers some of ten questions right.

    The stand-in answers every setting alike. So one that answers worse is stood for by a file of the same
    name that takes other answers for the right ones.
    """
    assert spec.accuracy is not None and spec.accuracy.path is not None
    path = Path(spec.accuracy.path).parent / str(seqs) / "sums.jsonl"
    path.parent.mkdir()
    rows = [RIGHT] * right + [WRONG] * (10 - right)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assignment = {} if seqs is None else {"max_num_seqs": seqs}
    return replace(spec, assignment=assignment, accuracy=replace(spec.accuracy, path=str(path)))


LOST = Constraint(metric="accuracy_loss_high", limit=0.4, is_upper=True)


def test_what_is_lost_is_counted_against_the_default_question_by_question(
    spec: TrialSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    # The default is measured in between, as may happen where trials run side by side.
    specs = [answering(spec, seqs=seqs, right=right) for seqs, right in ((8, 10), (None, 10), (16, 4))]
    results = [run(each) for each in specs]
    for result in results:
        assert result.state is TrialState.COMPLETE, result.failure_message
        Store(folder).append(result, queued_s=0.0, knobs=["max_num_seqs"])
    about = {"name": "study", "constraints": [{"metric": LOST.metric, "limit": LOST.limit, "is_upper": True}]}
    (folder / "study.json").write_text(json.dumps(about), encoding="utf-8")
    study = Study.load(folder)
    rows = {row["trial_key"]: row for row in study.frame.to_dict("records")}
    same, default, spoiled = (rows[each.key] for each in specs)
    assert default["accuracy_right"] == "1" * 10 and spoiled["accuracy_right"] == "1" * 4 + "0" * 6
    assert (default["accuracy_loss"], default["accuracy_loss_high"]) == (0.0, 0.0)
    expected = paired_loss([True] * 10, [True] * 4 + [False] * 6)
    assert (spoiled["accuracy_loss"], spoiled["accuracy_loss_high"]) == (0.6, expected.high)
    # Ten questions alike say that much: 3.84146 / 13.84146 of them could be lost.
    assert same["accuracy_loss"] == 0.0 and same["accuracy_loss_high"] == pytest.approx(0.277533, abs=1e-5)
    stand = standings.standings(study)
    assert list(stand.breaches) == ["max_num_seqs=16"]
    assert "60.0 points, at most" in report.text(study, drawn=[])


def test_search_holds_a_setting_against_the_default_once_that_is_known(spec: TrialSpec) -> None:
    default = Default()
    told = []
    for seqs, right in ((16, 4), (None, 10), (32, 4)):
        rows = measured_rows(run(answering(spec, seqs=seqs, right=right)))
        default.learn(rows)
        told.append(violations([LOST], default.held_against(rows)))
    # Until then the first is the only one known, and loses nothing against itself.
    assert [is_feasible(each) for each in told] == [True, True, False]

"""What Optuna is told of bounds and rules, and which changes of a question it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from sweeper.errors import ConfigError
from sweeper.records import Constraint, Objective
from sweeper.search import Search, storage_url
from sweeper.space.domains import Choice
from sweeper.space.rules import Rule
from sweeper.space.space import Space

FASTEST = Objective(metric="request_throughput_per_s", direction="maximize")
PROMPT = Constraint(metric="p99_ttft_ms", limit=2000.0, is_upper=True)
SPACE = Space(domains={"on": Choice(values=(True, False)), "n": Choice(values=(1, 2, 3))})


def opened(folder: Path, *, space: Space = SPACE, constraints: tuple[Constraint, ...] = (PROMPT,)) -> Search:
    return Search(
        storage=storage_url(folder),
        name="study",
        space=space,
        objectives=(FASTEST,),
        constraints=constraints,
        method="tpe",
        seed=0,
    )


def number_of(search: Search) -> int:
    candidate = search.ask()
    assert candidate is not None
    return candidate.number


def test_trial_that_breaks_bound_is_never_optunas_best(tmp_path: Path) -> None:
    search = opened(tmp_path)
    search.tell(number_of(search), [20.0], {}, violated={PROMPT.name: 0.5})
    search.tell(number_of(search), [10.0], {}, violated={PROMPT.name: -0.1})
    study = optuna.load_study(study_name="study", storage=storage_url(tmp_path))
    assert study.best_value == 10.0
    # The attribute that optuna-dashboard reads.
    assert [trial.system_attrs["constraints"] for trial in study.trials] == [[0.5], [-0.1]]


def test_point_that_breaks_rule_is_told_as_infeasible_and_is_no_failure(tmp_path: Path) -> None:
    search = opened(tmp_path)
    search.tell(number_of(search), None, {}, violated={"space.rules": 1.0})
    counts = search.counts()
    assert (counts["pruned"], counts["fail"]) == (1, 0)


@pytest.mark.parametrize("now", [(), (replace(PROMPT, limit=1000.0),)])
def test_other_constraints_are_another_question(tmp_path: Path, now: tuple[Constraint, ...]) -> None:
    search = opened(tmp_path)
    search.tell(number_of(search), [1.0], {}, violated={PROMPT.name: 0.0})
    search.close()
    with pytest.raises(ConfigError, match=r"was started with the constraints \['p99_ttft_ms <= 2000'\], now"):
        opened(tmp_path, constraints=now)
    opened(tmp_path).close()


def test_another_condition_is_another_space(tmp_path: Path) -> None:
    search = opened(tmp_path)
    search.tell(number_of(search), [1.0], {}, violated={PROMPT.name: 0.0})
    search.close()
    with pytest.raises(ConfigError, match="another space of knobs"):
        opened(tmp_path, space=replace(SPACE, conditions={"n": Rule(text="on == true")}))


def test_other_rules_are_another_question_to_search_that_learns(tmp_path: Path) -> None:
    ruled = replace(SPACE, rules=(Rule(text="n < 3"),))
    search = opened(tmp_path, space=ruled)
    search.tell(number_of(search), [1.0], {}, violated={PROMPT.name: 0.0})
    search.close()
    opened(tmp_path, space=ruled).close()
    with pytest.raises(ConfigError, match=r"started with the space.rules \['n < 3'\], now they are none"):
        opened(tmp_path)

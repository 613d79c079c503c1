"""How much each knob matters to a number, by Optuna's PED-ANOVA, which needs nothing beyond Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import create_trial

from sweeper.records import Scalar
from sweeper.search.proposer import quiet


def shares(
    settings: Sequence[Mapping[str, Scalar | None]], values: Sequence[float], *, is_higher_better: bool
) -> dict[str, float]:
    """Return the share of each knob in what makes a setting one of the best tenth.

    Args:
        settings: Knob to value, each with the same knobs; None is a knob that is not set.
        values: The number of each setting.
        is_higher_better: Which end is the best.

    Returns:
        Knob to share (0 to 1, their sum is 1), the largest first; empty where nothing differs.

    Source:
        Watanabe, Bansal and Hutter, "PED-ANOVA", IJCAI 2023, as ``optuna.importance`` has it.
    """
    distributions = {name: _distribution([one[name] for one in settings]) for name in settings[0]}
    direction = StudyDirection.MAXIMIZE if is_higher_better else StudyDirection.MINIMIZE
    trials = [
        create_trial(
            params={name: _said(distributions[name], value) for name, value in one.items()},
            distributions=distributions,
            value=value,
        )
        for one, value in zip(settings, values, strict=True)
    ]
    with quiet():
        study = optuna.create_study(direction=direction)
        study.add_trials(trials)
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    whole = sum(found.values())
    return {name: float(share) for name, share in found.items()} if whole > 0 else {}


def _distribution(values: Sequence[Scalar | None]) -> BaseDistribution:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values):
        return FloatDistribution(min(numbers), max(numbers))
    return CategoricalDistribution([str(value) for value in dict.fromkeys(values)])


def _said(distribution: BaseDistribution, value: Scalar | None) -> Scalar | None:
    return str(value) if isinstance(distribution, CategoricalDistribution) else value

"""How far off a calibration is, and the calibration that comes out of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

from sweeper import knobs
from sweeper.calibrate.figures import FIT, VALIDATION, Figure, predict, relative_errors
from sweeper.simulation.builds import kinds_of
from sweeper.simulation.calibration import WORDS, Compared, NamedCalibration, bare_name

LONG_TTFT_MS = 2000.0
"""Mean TTFT from which on it counts: a shorter one was read off a chart with an error of a tenth and more."""


def counts(figure: Figure) -> bool:
    """Whether a figure takes part in the errors of a calibration."""
    return figure.metric != "mean_ttft_ms" or figure.value > LONG_TTFT_MS


def errors_pct(
    figures: Sequence[Figure], predicted: Sequence[float], *, all_count: bool = False
) -> dict[str, dict[str, float]]:
    """Return the mean absolute error of each metric in percent, of fitted figures and of others.

    Args:
        figures: The figures.
        predicted: What the model says of each.
        all_count: Short first tokens too, where no figure was read off a chart.

    Returns:
        ``fit`` and ``validation`` to metric to percent; what has no figures is left out.
    """
    errors = [
        (figure, abs(error))
        for figure, error in zip(figures, relative_errors(figures, predicted), strict=True)
        if all_count or counts(figure)
    ]
    told: dict[str, dict[str, float]] = {}
    for role in (FIT, VALIDATION):
        for metric in WORDS:
            own = [error for figure, error in errors if (figure.role, figure.metric) == (role, metric)]
            if own:
                told.setdefault(role, {})[metric] = round(100 * sum(own) / len(own), 2)
    return told


def errors_as(
    role: str, figures: Sequence[Figure], predicted: Sequence[float], *, all_count: bool = False
) -> dict[str, float]:
    """Return ``errors_pct`` of figures that are all taken for fitted ones, or all for others, by ``role``."""
    return errors_pct([replace(f, role=role) for f in figures], predicted, all_count=all_count)[role]


def judged(
    figures: Sequence[Figure],
    values: Mapping[str, float],
    *,
    name: str,
    about: str,
    fitted: Mapping[str, str],
    made: date,
    all_count: bool = False,
) -> NamedCalibration:
    """Make the named calibration of these parameters, with its errors on these figures.

    Args:
        figures: Fitted ones and others.
        values: The parameters.
        name: What to call them.
        about: What they model, one sentence.
        fitted: Parameter to the runs that it was fitted to.
        made: Day of the fit.
        all_count: Short first tokens too, where no figure was read off a chart.
    """
    return NamedCalibration(
        name=name,
        about=about,
        made=made.isoformat(),
        values=dict(values),
        fitted=dict(fitted),
        errors_pct=errors_pct(figures, predict(figures, values), all_count=all_count),
        compared=compared_of(figures),
    )


def compared_of(figures: Sequence[Figure]) -> Compared:
    """Return what the runs of figures have in common."""
    specs = [figure.spec for figure in figures]
    return Compared(
        generations=tuple(
            sorted({knobs.engine_generation(s.engine.release, assignment=s.assignment) for s in specs})
        ),
        datasets=tuple(sorted({figure.point.dataset for figure in figures})),
        modes=tuple(
            sorted({figure.placement.partition_mode for figure in figures if figure.placement.partition_mode})
        ),
        models=tuple(sorted({bare_name(spec.model.name) for spec in specs})),
        kinds=tuple(sorted({kind for spec in specs for kind in kinds_of(spec.model, spec.assignment)})),
    )

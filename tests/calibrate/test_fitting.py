"""A fit finds the parameters that made its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from sweeper.calibrate.figures import Figure, predict
from sweeper.calibrate.fitting import fit
from sweeper.errors import ConfigError
from sweeper.records import LoadPoint, Placement, TrialSpec
from sweeper.simulation.calibration import METRICS, Calibration

POINTS = tuple(
    LoadPoint(dataset="random", num_prompts=24, input_len=tokens, output_len=12, request_rate_per_s=rate)
    for tokens in (64, 1024)
    for rate in (4.0, None)
)


def figures_of(spec: TrialSpec, placement: Placement, values: Mapping[str, float]) -> list[Figure]:
    """Figures that the model itself makes with these parameters."""
    blank = [
        Figure(
            experiment="made",
            series="one",
            metric=metric,
            value=1.0,
            point=point,
            spec=replace(spec, load_points=POINTS),
            placement=placement,
        )
        for point in POINTS
        for metric in METRICS
    ]
    made = predict(blank, values)
    return [replace(figure, value=value) for figure, value in zip(blank, made, strict=True)]


def test_parameters_are_recovered_from_figures_that_they_made(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    default = Calibration()
    truth = {"gemm_frac": default.gemm_frac * 0.8, "host_step_s": default.host_step_s * 1.3}
    figures = figures_of(simulated_spec, placement, truth)
    told: list[str] = []

    found = fit(figures, {}, parameters=list(truth), rounds=6, ridge=0.0, tell=told.append)

    assert found == pytest.approx(truth, rel=0.03)
    assert told[0].startswith("round 1: weighted squares ")


def test_parameters_that_are_not_named_stay(simulated_spec: TrialSpec, placement: Placement) -> None:
    figures = figures_of(simulated_spec, placement, {"host_step_s": 0.01})
    found = fit(figures, {"boot_s": 7.0}, parameters=["host_step_s"], rounds=1)
    assert set(found) == {"boot_s", "host_step_s"}
    assert found["boot_s"] == 7.0


def test_figures_with_remark_are_passed_over(simulated_spec: TrialSpec, placement: Placement) -> None:
    figures = figures_of(simulated_spec, placement, {})
    odd = [replace(figure, value=100 * figure.value, remark="a cold start") for figure in figures[:3]]
    found = fit([*odd, *figures[3:]], {}, parameters=["host_step_s"], rounds=2)
    assert found["host_step_s"] == pytest.approx(Calibration().host_step_s)


def test_fit_to_nothing_and_from_zero_is_refused(simulated_spec: TrialSpec, placement: Placement) -> None:
    with pytest.raises(ConfigError, match="got no figures to fit to"):
        fit([], {}, parameters=["host_step_s"])
    figures = figures_of(simulated_spec, placement, {})
    with pytest.raises(ConfigError, match="restart_noise starts at 0; expected above 0"):
        fit(figures, {}, parameters=["restart_noise"])


def weights(spec: TrialSpec, placement: Placement, *given: tuple[str, float, float]) -> Sequence[float]:
    """Weights of figures: metric, value, and half the width of the range; 0 is an exact number."""
    return [
        Figure(
            experiment="e",
            series="s",
            metric=metric,
            value=value,
            low=value - half if half else None,
            high=value + half if half else None,
            point=POINTS[0],
            spec=spec,
            placement=placement,
        ).weight
        for metric, value, half in given
    ]


def test_short_first_tokens_and_wide_readings_weigh_less(
    simulated_spec: TrialSpec, placement: Placement
) -> None:
    exact, ttft, short, read = weights(
        simulated_spec,
        placement,
        ("request_throughput_per_s", 8.0, 0.0),
        ("mean_ttft_ms", 2600.0, 0.0),
        ("mean_ttft_ms", 2400.0, 0.0),
        ("mean_tpot_ms", 100.0, 9.8),
    )
    assert (exact, ttft, short) == (3.0, 0.6, pytest.approx(0.18))
    # A range of 9.8 each way is a standard deviation of 5, as much as the model's own 5 %: 1 / sqrt(2).
    assert read == pytest.approx(0.7071, rel=1e-3)


def test_second_run_is_told_after_its_first(simulated_spec: TrialSpec, placement: Placement) -> None:
    first = LoadPoint(dataset="random", num_prompts=8, input_len=2048, output_len=4)
    second = replace(first, keeps_prefix_cache=True)
    spec = replace(
        simulated_spec,
        assignment={**simulated_spec.assignment, "enable_prefix_caching": True},
        load_points=(first, second),
    )
    fresh, again = (
        Figure(
            experiment="e",
            series="s",
            metric="mean_ttft_ms",
            value=1.0,
            point=point,
            spec=spec,
            placement=placement,
        )
        for point in (first, second)
    )
    # Asked for alone, the second run still finds the prompts that the first one left.
    assert predict([again], {})[0] < 0.6 * predict([fresh], {})[0]

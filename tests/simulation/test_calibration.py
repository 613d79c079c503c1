"""Named calibrations: what they hold, how they are found, and what they say of their own error."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sweeper.errors import ConfigError
from sweeper.simulation import calibration
from sweeper.simulation.calibration import Calibration, Compared, NamedCalibration

MINE = NamedCalibration(
    name="mine",
    about="A node.",
    made="2026-11-21",
    values={"gemm_frac": 0.4},
    fitted={"gemm_frac": "my study"},
    errors_pct={
        "fit": {"request_throughput_per_s": 1.4},
        "validation": {"request_throughput_per_s": 6.4, "mean_ttft_ms": 20.6},
    },
    compared=Compared(generations=("v0",), datasets=("sharegpt",), modes=("SPX",), models=("llama-70b",)),
)


def error_of(named: NamedCalibration, **changes: object) -> str:
    kind: dict[str, object] = {
        "generation": "v0",
        "datasets": ["sharegpt"],
        "mode": "SPX",
        "model": "meta-llama/Llama-70B",
    }
    return named.expected_error(**{**kind, **changes})  # type: ignore[arg-type]


def test_default_file_gives_every_parameter_its_value_and_says_how_far_off_it_is() -> None:
    shipped = calibration.load()
    assert shipped.name == calibration.USUAL["v0"]
    assert dict(shipped.values) == asdict(Calibration())
    assert set(shipped.fitted) < set(shipped.values)
    for role in ("fit", "validation"):
        assert set(shipped.errors_pct[role]) == set(calibration.METRICS)


def test_each_generation_has_its_usual_calibration_and_trial_need_not_name_it() -> None:
    v1 = calibration.load(generation="v1")
    assert v1.name == "amd_0_10_0"
    assert v1.compared.generations == ("v1",)
    assert set(v1.errors_pct["validation"]) == set(calibration.OFFLINE_METRICS)
    assert calibration.parameters({}, generation="v1") == v1.calibration != Calibration()
    assert calibration.parameters({}, generation="v0") == Calibration()
    changed = calibration.parameters({"gemm_frac": 0.4}, generation="v1")
    assert replace(changed, gemm_frac=v1.calibration.gemm_frac) == v1.calibration


def test_calibration_that_is_written_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    path = MINE.write(tmp_path)
    assert calibration.load("mine", folder=tmp_path) == MINE
    assert calibration.load(str(path)) == MINE
    assert calibration.names(tmp_path) == (*calibration.names(), "mine")
    assert calibration.names()[0] == "amd_0_10_0"


def test_what_file_leaves_out_is_defaults() -> None:
    whole = MINE.calibration
    assert whole.gemm_frac == 0.4
    assert replace(whole, gemm_frac=Calibration().gemm_frac) == Calibration()


def test_unknown_name_is_answered_with_those_that_there_are(tmp_path: Path) -> None:
    MINE.write(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"there is no 'mime'; expected one of amd_0_10_0, .*article_0_6_2, .*, mine, .*'mine'\?",
    ):
        calibration.load("mime", folder=tmp_path)
    with pytest.raises(ConfigError, match=r"'gone\.json' is no file"):
        calibration.load("gone.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is no calibration"),
        ("{", "is no calibration"),
        ('{"name": "x"}', "is no calibration"),
        ('{"name": "x", "about": "", "made": "", "values": {"gemm_frac": "0.5"}}', "gemm_frac is '0.5'"),
        ('{"name": "x", "about": "", "made": "", "values": {"gem_frac": 0.5}}', r"'gemm_frac'\?"),
        ('{"name": "x", "about": "", "made": "", "values": 3}', "got 3; expected parameters"),
    ],
)
def test_file_that_is_none_is_refused_with_its_name(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        calibration.load(str(path))
    assert str(caught.value).startswith(str(path))


def test_expected_error_is_that_of_runs_that_were_not_fitted() -> None:
    assert error_of(MINE) == "requests/s 6 %, mean TTFT 21 % (runs not fitted)"
    only_fit = replace(MINE, errors_pct={"fit": {"request_throughput_per_s": 1.4}})
    assert error_of(only_fit) == "requests/s 1 % (the runs fitted)"


def test_error_of_kind_that_was_never_compared_is_unknown() -> None:
    told = error_of(MINE, generation="v1", datasets=["random", "sharegpt"], mode="CPX", model="x/Llama-8B")
    assert told == (
        "unknown: never compared with engine V1, dataset random, partition mode CPX, model llama-8b"
    )
    assert error_of(replace(MINE, errors_pct={})) == "unknown: never compared with a measurement"


def test_parameters_changed_by_hand_rename_calibration_and_void_its_errors() -> None:
    changed = MINE.with_changes({"host_step_s": 0.5})
    assert changed.name == "mine with host_step_s=0.5"
    assert changed.calibration == replace(MINE.calibration, host_step_s=0.5)
    assert changed.errors_text == "unknown: never compared with a measurement"
    untouched = MINE.with_changes({})
    assert (untouched.name, untouched.errors_pct) == ("mine", MINE.errors_pct)
    assert json.loads(json.dumps(dict(untouched.values))) == asdict(MINE.calibration)


def test_kind_of_model_that_was_never_compared_comes_first() -> None:
    told = error_of(MINE, kinds=["latent attention", "a mixture of experts"])
    assert told == ("unknown: never compared with a measurement of latent attention, of a mixture of experts")
    seen = replace(MINE, compared=replace(MINE.compared, kinds=("latent attention", "a mixture of experts")))
    assert error_of(seen, kinds=["latent attention"]) == error_of(MINE)


def test_trials_carry_later_parameters_only_where_they_are_changed() -> None:
    plain = calibration.load().with_changes({})
    assert "expert_skew" in plain.values
    assert set(plain.values) - set(plain.trial_values) == set(calibration.LATER)
    changed = plain.with_changes({"expert_skew": 0.5})
    assert changed.trial_values["expert_skew"] == 0.5
    assert "dequantized_gemm_frac" not in changed.trial_values

"""Money, energy and start-up, worked out by hand from stored columns: as columns, objectives and bounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis import costs, standings
from analysis.cli import main
from analysis.study import Study
from sweeper.goals.objectives import measured_rows, trial_values, violations
from sweeper.records import Constraint, Objective, Placement, Provenance, TrialResult
from sweeper.records.derived import value

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

OUTPUT, TOTAL, POWER = "output_throughput_tok_per_s", "total_throughput_tok_per_s", "gpu_power_w"
WHOLE = Placement(node="n", devices=(0, 1, 2, 3), parents=(0, 1, 2, 3), partition_mode="SPX")
PART = Placement(node="n", devices=(3, 4), parents=(0,), partition_mode="CPX")
EIGHTHS = Placement(node="n", devices=tuple(range(8)), parents=(0,), partition_mode="CPX")


@pytest.fixture
def measured(trial: MakeTrial, study_folder: MakeFolder) -> Callable[..., Path]:
    """A study without a price: four GPUs at 2000 W, and two eighths of one, both in two starts."""

    def make(**about: Any) -> Path:
        runs = [[{OUTPUT: 400.0, TOTAL: 2000.0}], [{OUTPUT: 400.0, TOTAL: 2000.0}]]
        common: dict[str, Any] = {
            "runs": runs,
            "provenance": Provenance.MEASURED,
            "telemetry_at": lambda _: {POWER: 2000.0},
            "phases": {"engine_start_s": 90.0},
        }
        whole = replace(trial(series=("whole",), knobs={"n": 1}, **common), placement=WHOLE)
        part = replace(trial(series=("part",), knobs={"n": 2}, **common), placement=PART)
        return study_folder(whole, part, about=about)

    return make


def test_columns_are_worked_out_on_reading_and_price_may_come_later(measured: Callable[..., Path]) -> None:
    folder = measured()
    plain = Study.load(folder).frame
    assert plain["cost_per_million_output_tokens"].isna().all()
    priced = Study.load(folder, price_per_gpu_hour=3.6, currency="EUR")
    rows = {row["series"][0]: row for row in priced.frame.to_dict("records")}
    # 4 GPUs at 3.60 an hour are 0.004 a second: / 400 * 1e6 = 10 and / 2000 * 1e6 = 2.
    assert rows["whole"]["cost_per_million_output_tokens"] == pytest.approx(10.0)
    assert rows["whole"]["cost_per_million_total_tokens"] == pytest.approx(2.0)
    # 2000 W over 400 tokens a second are 5 J a token; two starts in 90 s are 45 s each.
    assert rows["whole"]["energy_per_output_token_j"] == pytest.approx(5.0)
    assert rows["whole"]["mean_engine_start_s"] == pytest.approx(45.0)
    # Two eighths of a GPU cost a sixteenth of four, and have no power of their own.
    assert rows["part"]["cost_per_million_output_tokens"] == pytest.approx(0.625)
    assert rows["part"]["energy_per_output_token_j"] != rows["part"]["energy_per_output_token_j"]
    assert set(plain["trial_key"]) == set(priced.frame["trial_key"])


def test_all_parts_of_a_gpu_have_its_power() -> None:
    row = {POWER: 700.0, OUTPUT: 350.0, "partition_mode": "CPX", "partitions_per_gpu": None}
    parts = {"devices": list(EIGHTHS.devices), "parents": list(EIGHTHS.parents)}
    assert value("energy_per_output_token_j", {**row, **parts}) == pytest.approx(2.0)
    half = {"devices": [0, 1, 2, 3], "parents": [0]}
    assert value("energy_per_output_token_j", {**row, **half}) is None


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"engine_start_s": 30.0, "live_trial": 0}, 30.0),
        ({"engine_start_s": 0.4, "live_trial": 3}, None),  # waited for a change of limits only
        ({"engine_start_s": 0.0}, None),  # ran already
        ({"engine_start_s": float("nan")}, None),
    ],
)
def test_start_is_known_where_something_was_started(row: dict[str, Any], expected: float | None) -> None:
    assert value("mean_engine_start_s", row) == expected


def test_search_sees_what_the_report_sees(trial: MakeTrial) -> None:
    result = trial(
        runs=[[{OUTPUT: 400.0}]],
        provenance=Provenance.MEASURED,
        telemetry_at=lambda _: {POWER: 2000.0},
        phases={"engine_start_s": 90.0},
    )
    rows = measured_rows(replace(result, placement=WHOLE))
    cost = Objective(metric="cost_per_million_output_tokens", direction="minimize", price_per_gpu_hour=3.6)
    energy = Objective(metric="energy_per_output_token_j", direction="minimize")
    start = Objective(metric="mean_engine_start_s", direction="minimize")
    assert trial_values([cost, energy, start], rows) == pytest.approx((10.0, 5.0, 90.0))
    bound = Constraint(
        metric="cost_per_million_output_tokens", limit=8.0, is_upper=True, price_per_gpu_hour=3.6
    )
    # 10 is a quarter over 8.
    assert violations([bound], rows) == pytest.approx(
        {"cost_per_million_output_tokens at 3.6 per GPU-hour <= 8": 0.25}
    )


def test_cheapest_setting_is_named_at_a_price_given_later(measured: Callable[..., Path]) -> None:
    folder = measured(
        objectives=[
            {
                "metric": "cost_per_million_output_tokens",
                "direction": "minimize",
                "price_per_gpu_hour": 1.0,
            }
        ],
        constraints=[{"metric": "mean_engine_start_s", "limit": 60, "is_upper": True}],
    )
    study = Study.load(folder, price_per_gpu_hour=3.6)
    assert study.objectives[0].price_per_gpu_hour == 3.6
    (line,) = standings.best_lines(study)
    assert line.startswith("part: lowest cost_per_million_output_tokens, at 16 QPS: 0.62")


def test_costs_command_tells_money_and_energy(
    measured: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(measured())
    assert main(["costs", folder]) == 0
    assert "## Energy" in (told := capsys.readouterr().out) and told.startswith("**Measured** on ")
    assert "| whole | 16 QPS | 2,000 | 5.00 |" in told and "## Cost" not in told
    assert main(["costs", folder, "--price", "3.6", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["provenance"] == "measured"
    by_setting = {row["setting"]: row for row in found["costs"]}
    assert by_setting["whole"]["per million tokens"] == pytest.approx(2.0)
    assert found["energy"] == [
        {
            "setting": "whole",
            "load point": "16 QPS",
            "mean power (W)": 2000.0,
            "J per output token": 5.0,
        }
    ]
    assert main(["costs", folder, "--price", "-1"]) == 2
    assert "--price: is -1; expected what a GPU costs" in capsys.readouterr().err


def test_simulated_platform_tells_no_energy_and_says_that_it_is_simulated(
    trial: MakeTrial, study_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study_folder(trial(series=("x",), runs=[[{OUTPUT: 400.0}]]))
    assert costs.energy(Study.load(folder)).empty
    assert main(["costs", str(folder)]) == 0
    assert "names no price and tells no power" in (told := capsys.readouterr().out)
    assert told.startswith("**Simulated: no GPU was measured.**")
    assert main(["costs", str(folder), "--price", "3.6", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["provenance"] == "simulated"

"""A study of the real vLLM (CPU build), fitted on half of its load points: one run, and all that follows."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from sweeper import cli

STUDY = (
    *("+experiment=cpu_smoke", "executor=inline", "executor.max_parallel=1", "study.name=curve"),
    *(
        "space.knobs.max_num_seqs=[4,32]",
        "space.knobs.max_num_batched_tokens=1024",
        "workload.request_rate_per_s=[null]",
    ),
    "workload.max_concurrency=[1,4,8,16]",
)
LINE = re.compile(r"^(max_num_seqs=\d+), (.+), (\w+): ([\d.e+]+); predicted ([\d.e+]+) \([+-]\d+ %\)$")


@pytest.mark.vllm
@pytest.mark.slow
def test_half_of_loads_of_real_study_is_predicted_from_other_half(
    tmp_path: Path, vllm_python: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*STUDY, f"engine.python={vllm_python}"]) == cli.OK
    told = capsys.readouterr().out
    rows = pd.read_parquet("outputs/curve/measurements")
    assert (set(rows["provenance"]), len(rows)) == ({"measured"}, 8)

    # The second setting was expected from the first one, while it was still to be measured.
    assert "expected: 1 trial was predicted from those before it" in told
    with Path("outputs/curve/expected.csv").open(encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    assert {row["anchored_by_trials"] for row in expected} == {"1"}
    assert {row["load"] for row in expected} == {"1 user", "4 users", "8 users", "16 users"}
    off = [
        float(row["expected"]) / float(row["measured"]) for row in expected if "throughput" in row["metric"]
    ]
    # What the model of a GPU says of a CPU is moved by one trial to the right order of magnitude.
    assert all(0.1 < each < 10 for each in off)

    assert cli.main(["calibrate", "outputs/curve", "--name", "my_cpu", "--judge-by", "loads"]) == cli.OK
    told = capsys.readouterr().out
    assert "24 figures: 12 to fit (0 of them passed over), 12 to judge by" in told
    lines = [found for line in told.splitlines() if (found := LINE.match(line))]
    assert len(lines) == 12
    assert {line[2] for line in lines} == {"4 users", "16 users"}
    for line in lines:
        known = rows[rows["max_concurrency"].eq(int(line[2].split()[0])) & rows[line[3]].notna()]
        assert any(float(line[4]) == pytest.approx(value, rel=1e-3) for value in known[line[3]])
    rates = [float(line[5]) / float(line[4]) for line in lines if line[3] == "request_throughput_per_s"]
    assert len(rates) == 4 and all(0.1 < each < 10 for each in rates)
    squares = [float(found) for found in re.findall(r"weighted squares ([\d.]+)", told)]
    assert squares[-1] < squares[0]

    made = json.loads(Path("outputs/calibrations/my_cpu.json").read_text(encoding="utf-8"))
    assert {*made["errors_pct"]["validation"]} == {"request_throughput_per_s", "mean_ttft_ms", "mean_tpot_ms"}
    use = ("platform=simulated", "+experiment=quick_start", "platform.calibration=my_cpu", "study.name=used")
    assert cli.main([*use, "executor=inline", "model=tiny_llama", "plan=true"]) == cli.OK

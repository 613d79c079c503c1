"""AMD's report: its folders, files, columns and formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis import cli, mad
from analysis.study import Study
from sweeper.errors import ConfigError
from sweeper.records import LoadPoint, Model, Provenance, TrialResult

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

BATCH = LoadPoint(dataset="latency", num_prompts=4, input_len=1, output_len=128)
LOAD = LoadPoint(dataset="throughput", num_prompts=3000, input_len=128, output_len=2048)


def folder_of(
    trial: MakeTrial, study_folder: MakeFolder, *, provenance: Provenance = Provenance.MEASURED
) -> Path:
    fp16 = {"dtype": "float16", "tensor_parallel_size": 8}
    fp8 = {"quantization": "fp8", "dtype": "float16"}
    return study_folder(
        # Two restarts: 1200 and 1360 ms.
        trial(
            points=(BATCH,),
            knobs=fp16,
            provenance=provenance,
            runs=[[{"mean_batch_latency_ms": 1200.0}], [{"mean_batch_latency_ms": 1360.0}]],
        ),
        trial(points=(LOAD,), knobs=fp16, provenance=provenance, runs=[[{"duration_s": 100.0}]]),
        trial(points=(BATCH,), knobs=fp8, provenance=provenance, runs=[[{"mean_batch_latency_ms": 640.0}]]),
    )


def test_latency_report_has_amds_columns_and_formula(trial: MakeTrial, study_folder: MakeFolder) -> None:
    written = mad.write(Study.load(folder_of(trial, study_folder)))
    folder = written[0].parents[1]
    assert [str(path.relative_to(folder)) for path in written] == [
        "reports_float16/Llama-3.1-70B-Instruct_latency_report.csv",
        "reports_float8/Llama-3.1-70B-Instruct_latency_report.csv",
        "reports_float16/Llama-3.1-70B-Instruct_throughput_report.csv",
    ]
    assert written[0].read_text().splitlines() == [
        "model,latency (ms),latency_per_tkn (ms),tp,batch_size,input_len,output_len,dtype",
        # The mean of both restarts is 1280 ms, over 128 tokens 10 ms each.
        "Llama-3.1-70B-Instruct,1280.0,10.0,8,4,1,128,float16",
    ]
    assert written[1].read_text().splitlines()[1] == "Llama-3.1-70B-Instruct,640.0,5.0,1,4,1,128,float8"


def test_throughput_report_has_amds_columns_and_formulas(trial: MakeTrial, study_folder: MakeFolder) -> None:
    table = mad.throughput_table(Study.load(folder_of(trial, study_folder)))
    assert list(table.columns) == [
        *("model", "throughput_tot (tok/sec)", "throughput_gen (tok/sec)", "tp", "requests"),
        *("input_len", "output_len", "dtype", "file"),
    ]
    row = table.iloc[0]
    # 3000 * (128 + 2048) / 100 s, and 3000 * 2048 / 100 s.
    assert row["throughput_tot (tok/sec)"] == pytest.approx(65_280)
    assert row["throughput_gen (tok/sec)"] == pytest.approx(61_440)
    assert (row["requests"], row["tp"]) == (3000, 8)


def test_simulated_numbers_say_so_in_models_name(trial: MakeTrial, study_folder: MakeFolder) -> None:
    folder = folder_of(trial, study_folder, provenance=Provenance.SIMULATED)
    table = mad.latency_table(Study.load(folder))
    assert set(table["model"]) == {"Llama-3.1-70B-Instruct (simulated)"}


def test_weights_in_fp8_are_float8_and_models_own_type_holds_without_knob(
    trial: MakeTrial, study_folder: MakeFolder, llama_70b: Model
) -> None:
    runs = [[{"mean_batch_latency_ms": 1.0}]]
    folder = study_folder(
        trial(points=(BATCH,), model=replace(llama_70b, dtype="fp8"), runs=runs),
        trial(points=(BATCH,), model=llama_70b, runs=runs),
    )
    assert set(mad.latency_table(Study.load(folder))["dtype"]) == {"float8", "bfloat16"}


def test_study_of_something_else_has_no_such_report(
    trial: MakeTrial, study_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study_folder(trial(runs=[[{"request_throughput_per_s": 1.0}]]))
    with pytest.raises(ConfigError, match="no complete measurement of dataset latency or throughput"):
        mad.write(Study.load(folder))
    assert cli.main(["mad", str(folder)]) == 2
    assert "client=offline" in capsys.readouterr().err


def test_command_names_what_it_wrote(
    trial: MakeTrial, study_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["mad", str(folder_of(trial, study_folder))]) == 0
    paths = capsys.readouterr().out.splitlines()
    assert len(paths) == 3
    assert len(pd.read_csv(paths[0])) == 1


def test_settings_that_report_has_no_column_for_are_not_averaged(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    folder = study_folder(
        *(
            trial(
                points=(LOAD,),
                knobs={"max_num_seqs": seqs},
                provenance=Provenance.MEASURED,
                runs=[[{"duration_s": seconds}], [{"duration_s": seconds}]],
            )
            for seqs, seconds in ((8, 300.0), (64, 100.0))
        )
    )
    table = mad.throughput_table(Study.load(folder))
    assert dict(zip(table["model"], table["throughput_gen (tok/sec)"], strict=True)) == {
        # 3000 * 2048 tokens in 300 s and in 100 s.
        "Llama-3.1-70B-Instruct (max_num_seqs=8)": pytest.approx(20_480),
        "Llama-3.1-70B-Instruct (max_num_seqs=64)": pytest.approx(61_440),
    }
    assert set(table["file"]) == {"Llama-3.1-70B-Instruct"}


def test_trial_of_two_series_has_one_line(trial: MakeTrial, study_folder: MakeFolder) -> None:
    one = trial(
        series=("a", "b"), points=(LOAD,), provenance=Provenance.MEASURED, runs=[[{"duration_s": 100.0}]]
    )
    assert mad.throughput_table(Study.load(study_folder(one)))["model"].tolist() == ["Llama-3.1-70B-Instruct"]

"""A table typed by hand from a blog post: a calibration comes of it, and each mistake gets one sentence."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from sweeper import cli
from sweeper.calibrate import anchoring, table
from sweeper.errors import ConfigError
from sweeper.simulation import calibration

ROOT = Path(__file__).resolve().parents[2]
HEADER = "model,release,device,mode,knobs,load,metric,value,source"
LOAD = "dataset=latency;num_prompts={batch};input_len=128;output_len=128"


def row(
    *,
    batch: int = 1,
    value: str = "720",
    model: str = "llama_3_1_8b",
    release: str = "0.9.1",
    device: str = "mi300x",
    mode: str = "SPX",
    knobs: str = "tensor_parallel_size=1;max_model_len=8192;VLLM_USE_V1=0",
    load: str = LOAD,
    metric: str = "mean_batch_latency_ms",
) -> str:
    return ",".join(
        (model, release, device, mode, knobs, load.format(batch=batch), metric, value, "a blog post")
    )


def written(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "blog.csv"
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return path


def test_three_numbers_make_calibration_that_says_what_it_is_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, row(), row(batch=4, value='"800"'), row(batch=8, value="910"))
    asked = ["calibrate", "--table", str(path), "--name", "blog", "--into", str(tmp_path)]
    assert cli.main(asked) == cli.OK
    told = " ".join(capsys.readouterr().out.split())
    assert "3 numbers; vLLM 0.9.1 by" in told
    assert "the nearest stack known is amd_0_9_0_1 (weights in fp8 in place of bfloat16; vLLM 0.9.0.1" in told
    assert told.count("; from the others ") == 3
    made = calibration.load("blog", folder=tmp_path)
    assert made.stack is not None
    assert (made.stack.release, made.stack.parent, made.stack.weights) == (
        "0.9.1",
        "amd_0_9_0_1",
        ("bfloat16",),
    )
    assert set(made.fitted) == {*anchoring.parameters_of(table.read(path).figures)}
    assert set(made.taken.values()) == {"amd_0_9_0_1"}
    # Each of its numbers from the two others: what leaving one out says.
    assert made.errors_pct["validation"]["mean_batch_latency_ms"] < 15
    assert json.loads((tmp_path / "blog.json").read_text())["values"] == asdict(made.calibration)


def test_answer_as_json_has_each_number_beside_what_the_others_predict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, row(), row(batch=4, value='"800"'))
    asked = ["calibrate", "--table", str(path), "--name", "blog", "--into", str(tmp_path), "--json"]
    assert cli.main(asked) == cli.OK
    streams = capsys.readouterr()
    told = json.loads(streams.out)
    assert told["file"] == str(tmp_path / "blog.json")
    assert told["calibration"] == json.loads((tmp_path / "blog.json").read_text())
    assert [each["value"] for each in told["predicted"]] == [
        figure.value for figure in table.read(path).figures
    ]
    for each in told["predicted"]:
        assert f"from the others {each['predicted']:.4g} (" in streams.err


def test_numbers_move_nearest_stack_towards_them_and_what_they_do_not_tell_stays(tmp_path: Path) -> None:
    figures = table.read(written(tmp_path, row(value="1440"), row(batch=8, value="1840"))).figures
    start = anchoring.basis_of(figures).calibration
    values = anchoring.anchored(figures, asdict(start))
    off = [
        abs(told / figure.value - 1)
        for told, figure in zip(anchoring.predict(figures, values), figures, strict=True)
    ]
    before = [
        abs(told / figure.value - 1)
        for told, figure in zip(anchoring.predict(figures, asdict(start)), figures, strict=True)
    ]
    assert max(off) < 0.1 < min(before)
    assert values["link_frac"] == start.link_frac


def test_rows_without_value_are_predicted_from_those_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (row(), row(batch=8, value="910"))
    asked = ["calibrate", "--name", "blog", "--into", str(tmp_path), "--json", "--table"]
    assert cli.main([*asked, str(written(tmp_path, *given))]) == cli.OK
    without = json.loads(capsys.readouterr().out)
    assert cli.main([*asked, str(written(tmp_path, *given, row(batch=4, value="")))]) == cli.OK
    streams = capsys.readouterr()
    told = json.loads(streams.out)
    # It is no number to fit to.
    assert told["calibration"]["values"] == without["calibration"]["values"]
    assert told["predicted"][:2] == without["predicted"]
    (extra,) = told["predicted"][2:]
    assert (extra["of"], extra["metric"], extra["value"]) == ("line 4", "mean_batch_latency_ms", None)
    assert 720 < extra["predicted"] < 910
    low, high = extra["interval_80"]
    assert low < extra["predicted"] < high
    words = f"predicted {extra['predicted']:.4g} ({low:.4g} to {high:.4g} in four of five)"
    assert words in " ".join(streams.err.split())


def test_runs_worth_measuring_are_chosen_of_those_without_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_rows = [row(batch=batch, value="") for batch in (1, 4, 8, 64)]
    path = written(tmp_path, *open_rows)
    assert cli.main(["calibrate", "--table", str(path), "--choose", "2", "--json"]) == cli.OK
    streams = capsys.readouterr()
    told = json.loads(streams.out)
    assert told["measure"][0] in (["line 2"], ["line 5"])
    assert sorted(map(tuple, told["measure"])) == [("line 2",), ("line 5",)]
    assert told["open_after"] < told["open_before"]
    assert "mean_batch_latency_ms (line 5)" in streams.err
    # Both ends are known now: one between them is left to choose.
    measured = [row(), *open_rows[1:3], row(batch=64, value="2200")]
    path = written(tmp_path, *measured)
    assert cli.main(["calibrate", "--table", str(path), "--choose", "1", "--json"]) == cli.OK
    then = json.loads(capsys.readouterr().out)
    assert then["measure"][0] in (["line 3"], ["line 4"])
    assert then["open_before"] < told["open_before"]


def test_docs_show_which_runs_of_the_example_are_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["calibrate", "--table", str(ROOT / "examples" / "which_runs.csv"), "--choose", "2"])
        == cli.OK
    )
    told = capsys.readouterr().out.strip()
    assert f"```\n{told}\n```" in (ROOT / "docs" / "predictor.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--table", "FILE", "--choose", "0"], "--choose: is 0; expected at least 1 run"),
        (["--published", "--choose", "1"], "--choose: is 1 without --table; expected"),
        (
            ["--table", "FILE", "--choose", "1"],
            "--choose: is 1; expected less than the 1 run without a value",
        ),
        (["--table", "FILE", "--name", "x"], "holds 1 number; expected at least 2, .* by --choose what to"),
    ],
)
def test_choice_that_cannot_be_made_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[str], message: str
) -> None:
    path = str(written(tmp_path, row(), row(batch=4, value="")))
    given = [path if argument == "FILE" else argument for argument in asked]
    assert cli.main(["calibrate", *given]) == cli.MISTAKE
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


GOOD = row(batch=4, value="800")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row()], "holds 1 number; expected at least 2"),
        ([row(model="llama_3_1_8c"), GOOD], r"line 2, model: got 'llama_3_1_8c'; .* 'llama_3_1_8b'\?"),
        ([row(release="newest"), GOOD], "line 2, release: got 'newest'; expected a release of vLLM"),
        ([row(device="mi300"), GOOD], r"line 2, device: got 'mi300'; .*Did you mean 'mi300x'\?"),
        ([row(mode="SPZ"), GOOD], r"line 2, mode: got 'SPZ'; .*Did you mean 'SPX'\?"),
        (
            [row(knobs="tensor_parallel_size"), GOOD],
            "line 2, knobs: got 'tensor_parallel_size'; .*name=value",
        ),
        ([row(knobs="max_num_seq=8"), GOOD], r"line 2, knobs: got 'max_num_seq'; .*'max_num_seqs'\?"),
        ([row(knobs="tensor_parallel_size=3"), GOOD], "line 2: cannot be modelled: .*divisor of the model's"),
        ([row(load="dataset=latency"), GOOD], "line 2, load: has no num_prompts"),
        ([row(load=LOAD + ";rate=3"), GOOD], "line 2, load: got 'rate'; expected one of dataset"),
        (
            [row(load="dataset=latency;num_prompts=two"), GOOD],
            "num_prompts is 'two'; expected a whole number",
        ),
        ([row(load="dataset=latencies;num_prompts=2"), GOOD], r"is 'latencies'; .*'latency'\?"),
        ([row(metric="mean_batch_latency_s"), GOOD], r"line 2, metric: .*'mean_batch_latency_ms'\?"),
        ([row(metric="mean_ttft_ms"), GOOD], "mean_ttft_ms is not reported at a load of dataset latency"),
        ([row(value="fast"), GOOD], "line 2, value: got 'fast'; expected a number above 0"),
        ([row(value="-3"), GOOD], "line 2, value: got '-3'; expected a number above 0"),
        ([row(value="720 ms"), GOOD], "line 2, value: got '720 ms'; .*in the metric's unit and without it"),
        ([row(value='"9,42"'), GOOD], "line 2, value: got '9,42'; expected a number above 0 such as 1234.5"),
        ([row(knobs="tensor_parallel_size=two"), GOOD], "line 2, knobs: .*'two'.*expected a whole number"),
        ([row(knobs="tensor_parallel_size=16"), GOOD], "line 2, knobs: take 16 devices; expected at most 8"),
        (
            [row(knobs="tensor_parallel_size=1;tensor_parallel_size=2"), GOOD],
            "line 2, knobs: gives tensor_parallel_size twice",
        ),
        (
            [row(release="0.32.0", knobs="num_scheduler_steps=10"), GOOD],
            "line 2, knobs: .*num_scheduler_steps was removed in vLLM",
        ),
        ([row(load=LOAD + ";num_prompts=3"), GOOD], "line 2, load: gives num_prompts twice"),
        ([], "holds no numbers; expected at least 2"),
        ([row(), row(value="730")], "line 3: gives again what line 2 gives"),
        (
            [row(), row(batch=4, release="0.9.2")],
            "line 3, release: got '0.9.2', and '0.9.1' in line 2; expected one stack",
        ),
        ([row(device=""), row(value="730")], "line 3: gives again what line 2 gives"),
        ([row().replace("a blog", '"a blog'), GOOD], "line 2: cannot be split into cells .*double quote"),
        ([row(), GOOD.replace("a blog", '"a blog')], "line 3: cannot be split into cells .*double quote"),
        (
            [row().replace("a blog", '"a blog' + "x" * 200_000), GOOD],
            r"line 2: cannot be split into cells .{100,300}$",
        ),
        ([row() + ",more", GOOD], "line 2: has 10 cells; expected 9, as the first line: 'more' is too much"),
        ([row().removesuffix(",a blog post"), GOOD], "line 2: has 8 cells, none for source; expected 9"),
        ([row().replace("mi300x,SPX,", ""), GOOD], "line 2: has 7 cells, none for value, source; expected 9"),
        ([row(load=LOAD.replace("128;", "0;")), GOOD], "input_len is '0'; expected a whole number from 1"),
        ([row(load=LOAD + ";max_concurrency=0"), GOOD], "max_concurrency is '0'; expected a whole number"),
        ([row(load=LOAD + ";request_rate_per_s=0"), GOOD], "per_s is '0'; expected a number above 0"),
        ([row(load=LOAD + ";burstiness=nan"), GOOD], "burstiness is 'nan'; expected a number above 0"),
        ([row(load=LOAD + ";range_ratio=1"), GOOD], "range_ratio is '1'; expected a number from 0 to below"),
    ],
)
def test_each_mistake_is_answered_in_one_sentence_with_its_line(
    tmp_path: Path, rows: list[str], message: str
) -> None:
    path = written(tmp_path, *rows)
    with pytest.raises(ConfigError, match=message) as caught:
        table.read(path)
    assert str(caught.value).startswith(str(path))


def test_what_spreadsheet_and_reader_write_otherwise_is_same_number(tmp_path: Path) -> None:
    plain = table.read(written(tmp_path, row(value="1720.5"), GOOD)).figures
    path = tmp_path / "saved.csv"
    rows = (row(value='"1,720.5"', release="v0.9.1"), GOOD)
    path.write_bytes(("\ufeff" + "\r\n".join((HEADER.title(), *rows))).encode())
    saved = table.read(path).figures
    assert [figure.value for figure in saved] == [figure.value for figure in plain] == [1720.5, 800.0]
    assert [figure.spec for figure in saved] == [figure.spec for figure in plain]


def test_empty_device_is_the_usual_one(tmp_path: Path) -> None:
    read = table.read(written(tmp_path, row(device=""), GOOD)).figures
    assert [figure.spec for figure in read] == [
        figure.spec for figure in table.read(written(tmp_path, row(), GOOD)).figures
    ]


@pytest.mark.parametrize(
    ("encoding", "where"), [("latin-1", "line 3: has byte 0xe9"), ("utf-16", "line 1: has")]
)
def test_file_of_another_encoding_is_to_be_saved_anew(tmp_path: Path, encoding: str, where: str) -> None:
    path = tmp_path / "blog.csv"
    path.write_bytes("\n".join((HEADER, row(), GOOD.replace("blog", "café"))).encode(encoding))
    with pytest.raises(ConfigError, match=f"{where}.*Save it as a CSV in UTF-8"):
        table.read(path)


def test_columns_are_checked_before_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="line 1: has no column release"):
        table.read(written(tmp_path, header="model,device,mode,knobs,load,metric,value"))
    with pytest.raises(ConfigError, match=r"line 1: got column 'laod'; .*Did you mean 'load'\?"):
        table.read(written(tmp_path, header=HEADER.replace("load", "laod")))
    with pytest.raises(ConfigError, match=r"got column 'sauce'; .*Did you mean 'source'\?"):
        table.read(written(tmp_path, header=HEADER.replace("source", "sauce")))
    with pytest.raises(ConfigError, match="line 1: has column value twice"):
        table.read(written(tmp_path, header=HEADER.replace("source", "value")))
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        with pytest.raises(ConfigError, match=f"line 1: separates its cells with {name}; expected commas"):
            table.read(written(tmp_path, header=HEADER.replace(",", separator)))
    gone = str(tmp_path / "gone.csv")
    assert cli.main(["calibrate", "--table", gone, "--name", "x"]) == cli.MISTAKE
    assert "gone.csv cannot be read" in " ".join(capsys.readouterr().err.split())

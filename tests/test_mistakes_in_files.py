"""Bad data: model and data files, the environment, commands, and a study's folder that came to harm.

Each is answered in one sentence that names the file; what was good in the folder is left as it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analysis.cli
from sweeper import cli, published
from sweeper.errors import StoreError
from sweeper.records import TrialSpec
from sweeper.store.store import Store
from tests.store.test_store import complete, with_knobs

PLAN = [
    "platform=simulated",
    "executor=inline",
    "workload=random",
    "space.knobs.max_num_seqs=64",
    "plan=true",
]
SWEEP = [*PLAN[:-1], "workload.num_prompts=2", "study.name=s"]

DENSE = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "vocab_size": 10,
    "max_position_embeddings": 10,
}

MODELS = {
    "no build": ("{}", "model_type is 'not given', whose build is not known here; expected one of"),
    "no dimensions": (
        '{"model_type": "llama"}',
        "num_hidden_layers is None; expected a whole number of at least 1",
    ),
    "a list": ("[1]", "is no JSON object; expected a model's config.json"),
    "half a file": ('{"num_hidden_layers": 2,', "is no JSON ("),
    "no text at all": ("\udcff", "is no JSON ('utf-8' codec can't decode"),
    "layers below zero": (
        json.dumps({**DENSE, "num_hidden_layers": -1}),
        "num_hidden_layers is -1; expected",
    ),
    "layers as a text": (
        json.dumps({**DENSE, "num_hidden_layers": "2"}),
        "num_hidden_layers is '2'; expected",
    ),
    "experts": (
        json.dumps({"model_type": "llama", "num_local_experts": 8}),
        "has 'num_local_experts' with model_type 'llama', which is a dense decoder",
    ),
    "latent attention": (
        json.dumps({"model_type": "llama", "kv_lora_rank": 8}),
        "has 'kv_lora_rank' with model_type 'llama', which is a dense decoder",
    ),
    "a quantization that is not known": (
        json.dumps({**DENSE, "quantization_config": {"quant_method": "gptq"}}),
        "quant_method is 'gptq', of which it is not known how many bits a weight takes",
    ),
    "a type that is none": (
        json.dumps({**DENSE, "torch_dtype": "int3"}),
        "torch_dtype is 'int3'; expected one",
    ),
}

COMMANDS = {
    "a model that is not there": (["fit", "none.json", "max_model_len=8"], "model: there is no 'none.json'"),
    "a platform": (["node", "--platform", "gpu"], "platform.name: 'gpu' is not a platform; expected one of "),
    "a mode that cannot be set": (["node", "--platform", "cpu", "--mode", "SPX"], "Drop them."),
    "a word too many": (["node", "x"], "unrecognized arguments: x. See: python -m sweeper node --help"),
    "no file": (["sharegpt"], "the following arguments are required: file"),
    "no conversation": (
        ["sharegpt", "x", "--conversations", "0"],
        "conversations: is 0; expected at least 1.",
    ),
    "a count in words": (["sharegpt", "x", "--conversations", "many"], "invalid int value: 'many'"),
    "a scale above one": (["sharegpt", "x", "--scale", "2"], "scale: is 2; expected above 0 and at most 1."),
    "a scale that is none": (["sharegpt", "x", "--scale", "nan"], "scale: is nan; expected above 0"),
    "a seed below zero": (["sharegpt", "x", "--seed", "-1"], "seed: is -1; expected 0 or more."),
    "a folder for a file": (["sharegpt", "."], ".: cannot be written"),
    "a file in a file": (["sharegpt", "/dev/null/x.json"], "/dev/null/x.json: cannot be written"),
    "a model in a file": (["tiny-model", "/dev/null/x"], "/dev/null/x: cannot be made (Not a directory)"),
    "an installer": (["cpu-vllm", "--installer", "conda"], "invalid choice: 'conda' (choose from 'auto', "),
    "no database": (["dashboard", "nowhere"], "nowhere/optuna.db: does not exist. Run an experiment first"),
    "a port in words": (["dashboard", ".", "--port", "http"], "argument --port: invalid int value: 'http'"),
    "an option": (["partitions", "--x"], "unrecognized arguments: --x"),
}

ANALYSES = {
    "no such folder": (["report", "nowhere"], "nowhere: no such folder; expected a study's folder"),
    "a folder without results": (["figures", "empty"], "empty: holds no results; expected Parquet parts"),
    "one of two that is not there": (["compare", "s", "nowhere", "--out", "o"], "nowhere: no such folder"),
    "a file for a folder": (["mad", "file"], "file: no such folder; expected a study's folder"),
    "an unknown kind of place": (["guide", "foo://x"], "study: 'foo://x' cannot be opened"),
    "a time-line of nothing": (["timeline", "nowhere"], "nowhere"),
    "claims of nothing": (["claims", "nowhere"], "nowhere: no such folder"),
    "an article of nothing": (["blog", "out", "nowhere"], "nowhere: no such folder"),
    "an option": (
        ["costs", "s", "--gpu-hour", "3"],
        "costs: unrecognized arguments: --gpu-hour 3. See: python -m analysis costs --help",
    ),
    "a price in words": (["costs", "s", "--price", "much"], "argument --price: invalid float value: 'much'"),
    "no folder": (["report"], "the following arguments are required: folder. See: python -m analysis report"),
    "no such command": (["reprot", "s"], "invalid choice: 'reprot' (choose from 'figures'"),
    "no command": ([], "the following arguments are required: COMMAND. See: python -m analysis --help"),
}

DESCRIPTIONS = {
    "half a file": ('{"platform": "simulated",', "study.json: is not JSON"),
    "nothing": ("", "study.json: is not JSON"),
    "a list": ("[]", "study.json: holds a list; expected a JSON object."),
    "a later format": ('{"schema_version": 9}', "study.json: is of schema version 9; expected at most 1."),
    "a version that is none": ('{"schema_version": "one"}', "study.json: "),
}

SERIES = {
    "series as a list": ({"series": [1]}, "'series' is [1]; expected an object."),
    "a series as a text": ({"series": {"a": "A"}}, "'series.a' is 'A'; expected an object."),
    "a series of nothing": ({"series": {"a": None}}, "'series.a' is null; expected an object."),
    "a label as a number": ({"series": {"a": {"label": 7}}}, "'series.a.label' is 7; expected a text."),
    "a place as a text": (
        {"series": {"a": {"order": "x"}}},
        "'series.a.order' is 'x'; expected a whole number.",
    ),
    "a run that is none": ({"series": {"a": {"run": "third"}}}, "has run 'third'; expected one of"),
    "objectives as a text": ({"objectives": "x"}, "'objectives' is 'x'; expected a list."),
    "an objective as a text": ({"objectives": ["x"]}, "'objectives[0]' is 'x'; expected an object."),
    "a metric that is none": ({"objectives": [{"metric": "x"}]}, "metric 'x'; expected maximize or minimize"),
    "a rate as a text": (
        {"objectives": [{"metric": "p99_ttft_ms", "request_rate_per_s": "fast"}]},
        "'objectives[0].request_rate_per_s' is 'fast'; expected a number.",
    ),
    "results as a number": ({"results": 7}, "'results' is 7; expected a text."),
}

HEADER = ",".join(published.COLUMNS)
ROW = "a,mean_ttft_ms,16,1.0,,,read,MI300X,llama,here"
PUBLISHED = {
    "no header": ("1,2,3\n", "lacks ['series', 'metric'"),
    "nothing": ("", "published.csv: cannot be read"),
    "ragged rows": (f"{HEADER}\n{ROW},1,2\n{ROW}\n", "published.csv: "),
    "a value twice": (f"{HEADER}\n{ROW}\n{ROW}\n", "twice; expected one value. Remove one."),
    "a value in words": (
        f"{HEADER}\n{ROW.replace('1.0', 'fast')}\n",
        "'value' holds 'fast'; expected a number.",
    ),
    "no text at all": ("\udcff\udcfe", "published.csv: cannot be read"),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def study(simulated_spec: TrialSpec) -> Store:
    """A study ``s`` with two trials."""
    store = Store(Path("outputs", "s"))
    for seqs in (64, 128):
        store.append(complete(with_knobs(simulated_spec, max_num_seqs=seqs)), queued_s=0.0, knobs=[])
    return store


def answer(
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    *,
    code: int = cli.MISTAKE,
    main: Callable[[list[str]], int] = cli.main,
) -> str:
    got = main(arguments)
    told = capsys.readouterr()
    assert got == code, told.out + told.err
    assert "Traceback" not in told.out + told.err
    assert "a defect of this program" not in told.err
    assert told.err.startswith("error: ")
    return " ".join(told.err.split())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mistake", MODELS)
def test_model_that_cannot_be_understood_is_named(mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = MODELS[mistake]
    Path("config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    told = answer(["fit", "config.json", "max_model_len=8"], capsys)
    assert told.startswith("error: config.json: ")
    assert message in told


@pytest.mark.parametrize("mistake", COMMANDS)
def test_mistake_in_command_is_answered(mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = COMMANDS[mistake]
    assert message in answer(arguments, capsys)


@pytest.mark.parametrize("mistake", ANALYSES)
def test_analysis_of_what_is_no_study_is_answered(
    mistake: str, study: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = ANALYSES[mistake]
    Path("empty").mkdir()
    Path("file").write_text("")
    Path("s").symlink_to(study.folder)
    before = contents(study.folder)
    assert message in answer(arguments, capsys, main=analysis.cli.main)
    assert contents(study.folder) == before


@pytest.mark.parametrize("mistake", DESCRIPTIONS)
def test_damaged_description_stops_sweep_and_stays(
    mistake: str, study: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = DESCRIPTIONS[mistake]
    (study.folder / "study.json").write_text(content)
    before = contents(study.folder)
    assert message in answer(SWEEP, capsys, code=cli.AT_RISK)
    assert contents(study.folder).items() >= before.items()


@pytest.mark.parametrize("mistake", SERIES)
def test_odd_description_stops_analysis(
    mistake: str, study: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = SERIES[mistake]
    (study.folder / "study.json").write_text(json.dumps(content))
    before = contents(study.folder)
    told = answer(["claims", str(study.folder)], capsys, main=analysis.cli.main)
    assert "study.json: " in told
    assert message in told
    assert contents(study.folder) == before


@pytest.mark.parametrize("mistake", PUBLISHED)
def test_published_figures_that_cannot_be_read_are_named(mistake: str, tmp_path: Path) -> None:
    content, message = PUBLISHED[mistake]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "published.csv").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError) as caught:
        published.load("mine", root=tmp_path)
    assert message in str(caught.value)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("PAR1, they said")


def _foreign(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path)


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4:40] = bytes(36)
    path.write_bytes(content)


def _copied(path: Path) -> None:
    shutil.copy(next(other for other in path.parent.iterdir() if other != path), path)


@pytest.mark.parametrize("harm", [_cut, _empty, _text, _foreign, _flipped, _copied])
def test_damaged_part_stops_plan_and_is_set_aside_by_sweep(
    harm: Callable[[Path], None], study: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = (Path(part) for part in study.parts())
    harm(bad)
    before, broken = good.read_bytes(), bad.read_bytes()

    told = answer([*PLAN, "study.name=s"], capsys, code=cli.AT_RISK)

    assert f"{bad}: is no readable result" in told
    assert "Move it out of the way" in told
    assert (good.read_bytes(), bad.read_bytes()) == (before, broken)
    [moved] = Store(study.folder).set_aside_unreadable()
    assert Path(moved).read_bytes() == broken
    assert good.read_bytes() == before
    assert len(Store(study.folder).read()) == 1


def test_files_of_other_kinds_among_parts_are_set_aside(study: Store) -> None:
    for name in ("notes.txt", ".hidden", "_mine"):
        (study.folder / "measurements" / name).write_text("x")
    assert [Path(path).name for path in study.set_aside_unreadable()] == ["notes.txt"]
    assert len(study.read()) == 2


def test_damaged_search_database_is_named_and_nothing_is_lost(
    study: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("outputs", "optuna.db").write_bytes(b"SQLite format 3\0" + bytes(200))
    before = contents(study.folder / "measurements") | {"db": Path("outputs", "optuna.db").read_bytes()}
    told = answer(SWEEP, capsys, code=cli.AT_RISK)
    assert "optuna.db: cannot be opened as an Optuna study database" in told
    assert "Move a file away" in told
    after = contents(study.folder / "measurements") | {"db": Path("outputs", "optuna.db").read_bytes()}
    assert after == before


def test_interpreter_in_environment_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWEEPER_VLLM_PYTHON", "/nowhere/python")
    told = answer(["platform=cpu", "model=tiny_llama", *PLAN[1:]], capsys)
    assert "/nowhere/python" in told
    assert not Path("outputs", "study-cpu").exists()


def test_disk_that_is_full_stops_sweep_and_keeps_what_is_finished(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep = [*SWEEP, "space.knobs.max_num_seqs=32,64,128", "executor.max_parallel=1"]
    assert cli.main([*sweep, "study.name=whole"]) == cli.OK
    first, *_, last = sorted(
        Path("outputs", "whole", "measurements").iterdir(), key=lambda path: path.stat().st_mtime_ns
    )
    capsys.readouterr()
    folder = Path("outputs", "s", "measurements")
    folder.mkdir(parents=True)
    # Every write to /dev/full fails as on a full disk (ENOSPC).
    (folder / f".{last.name}.partial").symlink_to("/dev/full")

    told = answer(sweep, capsys, code=cli.AT_RISK)

    assert f"{last.name}: cannot be written ([Errno 28] No space left on device)" in told
    assert "Make room" in told
    assert first.name in [path.name for path in folder.iterdir()]
    assert last.name not in [path.name for path in folder.iterdir()]
    kept = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    assert cli.main(sweep) == cli.OK  # there is room again: the rest is measured, nothing twice
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    assert len(Store(folder.parent).read()) == 3

"""Secrets are written nowhere, nothing is run through a shell, and no name leads out of a study's folder."""

from __future__ import annotations

import ast
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.browser import logs
from sweeper import cli
from sweeper.clients import vllm_bench
from sweeper.engines.vllm import VllmEngine, server_command
from sweeper.records import FailureClass, TrialState
from sweeper.trial import outcome, trial
from sweeper.trial.record import TrialRecord
from tests.standin_server import PLACEMENT, POINT, RELEASE, make_spec, never, write_interpreter

ROOT = Path(__file__).resolve().parents[1]
SERVER_KEY = "planted-key-of-the-server"
PLANTED = {
    "HF_TOKEN": "hf_plantedHuggingFaceToken",
    "HUGGING_FACE_HUB_TOKEN": "hf_plantedOlderToken",
    "WANDB_API_KEY": "plantedWandbKey0123",
    "OPENAI_API_KEY": "sk-plantedOpenAiKey",
    "VLLM_API_KEY": "plantedKeyOfTheUser",
    "AWS_SECRET_ACCESS_KEY": "plantedAwsSecret/42",
    "MY_DB_PASSWORD": "plantedPassword!",
}
ONE_TRIAL = (
    *("+experiment=cpu_smoke", "space.knobs.max_num_seqs=[8]", "space.knobs.max_num_batched_tokens=[2048]"),
)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Secrets in the environment, and a known key for every server."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(secrets, "token_urlsafe", lambda nbytes=None: SERVER_KEY)
    return [value.encode() for value in (*PLANTED.values(), SERVER_KEY)]


def files(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.rglob("*") if path.is_file())


def leaks(folder: Path, planted: list[bytes]) -> list[str]:
    found = []
    for path in files(folder):
        content = path.read_bytes()
        found += [f"{value.decode()} in {path}" for value in planted if value in content]
    return found


def test_no_secret_is_written_or_said_by_study(
    tmp_path: Path, planted: list[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    python = write_interpreter(tmp_path / "bin")
    outputs = tmp_path / "outputs"
    code = cli.main([*ONE_TRIAL, f"engine.python={python}", "executor=inline", f"study.outputs={outputs}"])
    told = capfd.readouterr()
    assert code == 0, told
    names = {path.name for path in files(outputs)}
    # What could hold one is there: start files, commands, logs, dumps, rows, the search, the report.
    assert {"engine-1-0.command.json", "engine-1-0.start.json", "engine-1-0.log", "client-1.log"} <= names
    assert {"overrides.json", "config.json", "study.json", "optuna.db"} <= names
    assert any(name.endswith(".parquet") for name in names)
    assert leaks(outputs, planted) == []
    assert not [value for value in planted if value.decode() in told.out + told.err]


@pytest.mark.ray
def test_no_secret_is_in_rays_own_folder(tmp_path: Path, planted: list[bytes]) -> None:
    from sweeper.executors.private_ray import PrivateRay
    from sweeper.executors.ray import RayExecutor

    session = PrivateRay(devices=1, log_path=tmp_path / "ray.log")
    executor = RayExecutor(session)
    try:
        spec = make_spec(tmp_path / "outputs", write_interpreter(tmp_path / "bin"))
        executor.submit(spec, PLACEMENT)
        finished = []
        while not finished:
            finished = executor.wait(5.0)
        assert finished[0][1].state is TrialState.COMPLETE, finished[0][1].failure_message
        assert list(files(session._temp_dir)), "Ray keeps its logs there"
        assert leaks(session._temp_dir, planted) == []
        assert leaks(tmp_path, planted) == []
    finally:
        executor.close()


def test_secret_in_engines_last_words_is_masked_in_row(
    tmp_path: Path, planted: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "die")
    monkeypatch.setenv("STANDIN_LAST_WORDS", f"ValueError: 401 for token {PLANTED['HF_TOKEN']}")
    spec = make_spec(tmp_path, write_interpreter(tmp_path / "bin"))
    result = trial.run(spec, PLACEMENT, cancelled=never)
    assert result.failure_class is FailureClass.BAD_ARGUMENT
    assert result.failure_message == "ValueError: 401 for token ***"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            "ValueError: postgresql://me:plantedUrlPassword@db/x is not reachable",
            "ValueError: postgresql://me:***@db/x is not reachable",
        ),
        ("ValueError: password=plantedUrlPassword is wrong", "ValueError: password=*** is wrong"),
        (
            f"ValueError: the key {SERVER_KEY} is known to this server alone",
            "ValueError: the key *** is known to this server alone",
        ),
    ],
)
def test_no_secret_that_engine_says_while_dying_is_stored_or_printed(
    said: str,
    kept: str,
    tmp_path: Path,
    planted: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STANDIN", "die")
    monkeypatch.setenv("STANDIN_LAST_WORDS", said)
    python, outputs = write_interpreter(tmp_path / "bin"), tmp_path / "outputs"
    code = cli.main([*ONE_TRIAL, f"engine.python={python}", "executor=inline", f"study.outputs={outputs}"])
    told = capfd.readouterr()
    assert code == 3, told
    assert kept in told.out
    secrets_said = [b"plantedUrlPassword", SERVER_KEY.encode()]
    assert not [value for value in secrets_said if value.decode() in told.out + told.err]
    # The engine's own log is evidence, and is left as it came.
    assert {Path(leak.rpartition(" in ")[2]).suffix for leak in leaks(outputs, secrets_said)} == {".log"}


def test_each_server_has_key_of_its_own_and_listens_on_loopback(tmp_path: Path) -> None:
    python = write_interpreter(tmp_path / "bin")
    spec = make_spec(tmp_path, python)
    servers = [VllmEngine().start(spec, PLACEMENT, restart=restart, cancelled=never) for restart in (0, 1)]
    try:
        keys = {server.api_key for server in servers}
        assert len(keys) == 2
        assert all(len(key) >= 32 for key in keys)
        assert all(server.base_url.startswith("http://127.0.0.1:") for server in servers)
        assert leaks(tmp_path, [key.encode() for key in keys]) == []
    finally:
        for server in servers:
            server.stop()


def test_key_of_endpoint_is_masked_whatever_its_variable_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT", "plantedEndpointWord")
    spec = make_spec(tmp_path, write_interpreter(tmp_path / "bin"))
    spec = replace(spec, engine=replace(spec.engine, kind="attach", api_key_env="ENDPOINT"))
    result = outcome.lost(spec, PLACEMENT, OSError("401: plantedEndpointWord is no key"))
    assert result.failure_message == "the worker of this trial was lost: OSError: 401: *** is no key"
    failed = outcome.failed(
        TrialRecord(spec=spec, placement=PLACEMENT), OSError("401: plantedEndpointWord is no key")
    )
    assert failed.failure_message == "OSError: 401: *** is no key"
    assert leaks(tmp_path, [b"plantedEndpointWord"]) == []


def test_secret_where_a_long_message_is_cut_is_masked_whole(tmp_path: Path, planted: list[bytes]) -> None:
    spec = make_spec(tmp_path, write_interpreter(tmp_path / "bin"))
    token = PLANTED["HF_TOKEN"]
    kind = "the worker of this trial was lost: OSError: "
    # The ten thousandth letter is the token's fifth.
    said = "a" * (10_000 - len(kind) - 5) + token + "b" * 20_000
    message = outcome.lost(spec, PLACEMENT, OSError(said)).failure_message
    assert message is not None and len(message) < 20_010
    assert token[:5] not in message


def test_secret_where_the_page_cuts_a_log_is_left_out(tmp_path: Path, planted: list[bytes]) -> None:
    token = PLANTED["WANDB_API_KEY"]
    # Of the 16384 bytes that are read the first is the token's sixth.
    rest = "\nthe last line"
    (tmp_path / "a.log").write_text("x" * 99 + token + "z" * (16_384 - len(token[5:] + rest)) + rest)
    assert logs.last_lines(tmp_path, "a.log").strip() == "the last line"


def test_code_of_model_is_trusted_only_when_asked(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "python")
    asked = replace(spec, assignment={**spec.assignment, "trust_remote_code": True})
    assert "--trust-remote-code" not in server_command(spec, python="python", port=1)
    assert "--trust-remote-code" in server_command(asked, python="python", port=1)
    arguments = vllm_bench.benchmark_arguments(
        spec, POINT, base_url="http://127.0.0.1:1", release=RELEASE, result=tmp_path / "result.json"
    )
    assert "--trust-remote-code" not in arguments


def test_dashboard_listens_on_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: ran.append(arguments))
    (tmp_path / "optuna.db").touch()
    cli.main(["dashboard", str(tmp_path)])
    assert ran[0][ran[0].index("--host") + 1] == "127.0.0.1"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("+knobs.HF_TOKEN=hf_planted0123", "knobs.HF_TOKEN"),
        ("+knobs.api_key=hf_planted0123", "knobs.api_key"),
        ("+space.knobs.WANDB_API_KEY=[hf_planted0123]", "space.knobs.WANDB_API_KEY"),
        ("engine.prefix=[docker,run,-e,'HF_TOKEN=hf_planted0123']", "engine.prefix"),
        ("study.results='s3://user:hf_planted0123@bucket/x'", "study.results"),
        ("engine.url='http://user:hf_planted0123@host'", "engine.url"),
        ("engine.prefix=[docker,run,-e,'DB=postgres://me:hf_planted0123@h']", "engine.prefix"),
        ("+knobs.DATABASE='postgres://me:hf_planted0123@h'", "knobs.DATABASE"),
        ("study.storage='postgres://user:hf_planted0123@host/studies'", "study.storage"),
        ("engine.prefix=[program,--api-key,hf_planted0123]", "engine.prefix"),
        ("engine.container_arguments=['--env=A=hf_planted0123ABCDEFGHIJK']", "engine.container_arguments"),
        ("workload.extra_body={api_key: hf_planted0123}", "workload.extra_body"),
        ("+knobs.additional_config={password: hf_planted0123}", "knobs.additional_config"),
        ("+knobs.tokenizer='https://hf_planted0123ABCDEFGHIJK@host/x'", "knobs.tokenizer"),
        ("study.question='is https://me:hf_planted0123@host slow?'", "study.question"),
    ],
)
def test_secret_in_configuration_is_refused_without_being_shown(
    override: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(
        ["+experiment=quick_start", "platform=simulated", override, f"study.outputs={tmp_path}/out"]
    )
    told = capsys.readouterr()
    assert code == 2, told
    assert named in told.out + told.err
    assert "hf_planted0123" not in told.out + told.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ("study.name=../evil",),
        ("study.name=/tmp/evil",),
        ("study.name=..",),
        ("study.name='a/b'",),
        ("study.name=good", "study.experiment=../../evil"),
    ],
)
def test_name_that_leads_out_of_outputs_is_refused(
    overrides: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["+experiment=quick_start", "platform=simulated", "executor=inline"]
    code = cli.main([*arguments, *overrides, f"study.outputs={tmp_path}/below/outputs"])
    told = capsys.readouterr()
    assert code == 2, told
    assert "cannot name a folder" in told.out + told.err
    assert list(tmp_path.iterdir()) == []


def test_other_names_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of series and of the served model label rows; no file is called after them."""
    monkeypatch.chdir(tmp_path)
    experiments = tmp_path / "conf" / "experiment"
    experiments.mkdir(parents=True)
    (experiments / "evil.yaml").write_text(
        "# @package _global_\n"
        "study: {experiment: evil, question: '../../evil'}\n"
        "model: {name: ../../../evil, path: ../../../evil, shape: {layers: 2, hidden: 64, intermediate: 128, "
        "heads: 4, kv_heads: 4, head_dim: 16, vocab: 1024, max_positions: 8192}}\n"
        "space: {series: {../../../evil: {label: ../../../evil, knobs: {max_num_seqs: 64}}}}\n"
    )
    outputs = tmp_path / "below" / "outputs"
    arguments = ["--config-dir", str(tmp_path / "conf"), "+experiment=evil", "platform=simulated"]
    cli.main([*arguments, "executor=inline", f"study.outputs={outputs}"])
    written = [path for path in files(tmp_path) if experiments not in path.parents]
    assert written
    assert all(outputs in path.parents and "evil" not in path.name for path in written)


_SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
_UNSAFE = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "pickle.load", "pickle.loads", "eval", "exec"}


@pytest.mark.parametrize("folder", ["sweeper", "analysis", "benchmarks"])
def test_nothing_is_run_through_shell_or_loaded_as_code(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            assert ast.unparse(node.func) not in _SHELLS | _UNSAFE, where
            assert all(keyword.arg != "shell" for keyword in node.keywords), where


@pytest.mark.parametrize("folder", ["sweeper", "conf"])
def test_nothing_listens_to_outside_by_itself(folder: str) -> None:
    for path in files(ROOT / folder):
        if path.suffix in (".py", ".yaml"):
            assert "0.0.0.0" not in path.read_text(encoding="utf-8"), path

"""Starting, proving and ending TGI: against a stand-in that speaks its protocol."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.engines import contained, tgi
from sweeper.engines.tgi import TgiEngine
from sweeper.errors import ConfigError, EngineError, MeasurementError
from sweeper.processes import ports, process
from sweeper.processes.process import Process
from sweeper.records import EngineSpec, FailureClass, Platform, TrialSpec
from tests.standin_server import PLACEMENT, make_spec, never
from tests.standin_tgi import VERSION, write_container_tool, write_launcher

# The article's command for TGI, "This Guide": appendix of "Serving LLMs on AMD MI300X".
ARTICLE = {
    "num_shard": 8,
    "sharded": True,
    "max_concurrent_requests": 1024,
    "max_total_tokens": 131072,
    "max_input_tokens": 131000,
    "ROCM_USE_FLASH_ATTN_V2_TRITON": "false",
    "TRUST_REMOTE_CODE": "true",
}


def tgi_spec(tmp_path: Path, **changes: object) -> TrialSpec:
    """A trial of TGI; `prefix` and `command` go to its engine."""
    fields = {name: changes.pop(name) for name in ("prefix", "command") if name in changes}
    fields.setdefault("command", str(write_launcher(tmp_path / "bin")))
    spec = make_spec(tmp_path, "python", **{"assignment": {"max_total_tokens": 2048}, **changes})
    return replace(spec, engine=replace(spec.engine, kind="tgi", **fields))  # type: ignore[arg-type]


def test_articles_command_is_written_as_it_stands_there(tmp_path: Path) -> None:
    spec = tgi_spec(tmp_path, assignment=ARTICLE, command="text-generation-launcher")
    assert tgi.server_command(spec, port=8000) == (
        *("text-generation-launcher", "--model-id", str(tmp_path)),
        *("--hostname", "127.0.0.1", "--port", "8000"),
        *("--max-concurrent-requests", "1024", "--max-input-tokens", "131000"),
        *("--max-total-tokens", "131072", "--num-shard", "8", "--sharded", "true"),
    )


def test_switch_of_tgi_stands_alone_or_is_left_out() -> None:
    assert tgi.command_line({"trust_remote_code": True, "sharded": False, "instances": 2}) == (
        *("--sharded", "false"),
        "--trust-remote-code",
    )
    assert tgi.command_line({"trust_remote_code": False}) == ()


def test_flag_that_tgi_lacks_is_refused_with_nearest_one() -> None:
    (refusal,) = tgi.check({**ARTICLE, "max_total_token": 130000})
    assert refusal == (
        "knob 'max_total_token' = 130000: TGI has no flag of this name. Did you mean 'max_total_tokens'?"
    )
    assert "whoever starts the server gives it" in tgi.check({"model_id": "x"})[0]
    assert "expected true or false" in tgi.check({"trust_remote_code": "yes"})[0]
    assert tgi.check(ARTICLE) == ()


def test_variable_that_nobody_reads_is_refused_unless_it_is_allowed() -> None:
    (refusal,) = tgi.check({"PREFIX_CACHNG": 1})
    assert refusal.endswith("engine.allow_unknown=true lets it pass. Did you mean 'PREFIX_CACHING'?")
    assert tgi.check({"PREFIX_CACHNG": 1}, allow_unknown=True) == ()
    # Each flag has a twin among the variables, and what runs beneath has its own.
    assert tgi.check({"MAX_TOTAL_TOKENS": 4096, "NCCL_MIN_NCHANNELS": 112, "PREFIX_CACHING": 1}) == ()


def test_tgi_gets_one_mask_its_variables_and_socket_folder_of_its_own(tmp_path: Path) -> None:
    spec = tgi_spec(tmp_path, assignment=ARTICLE, platform=Platform.MI300X)
    env = tgi.server_environment(
        spec,
        replace(PLACEMENT, devices=(1, 0)),
        surroundings={"PATH": "/usr/bin", "ROCR_VISIBLE_DEVICES": "3"},
        api_key="k3y",
        owner=Process(1, 2),
        folder=tmp_path,
    )
    assert env["HIP_VISIBLE_DEVICES"] == "0,1"
    assert env["SWEEPER_DEVICE_MASK"] == "HIP_VISIBLE_DEVICES=0,1"
    assert not {"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"} & set(env)
    assert env["ROCM_USE_FLASH_ATTN_V2_TRITON"] == "false"
    assert env["TRUST_REMOTE_CODE"] == "true"
    assert env["API_KEY"] == "k3y"
    assert env["SHARD_UDS_PATH"] == f"{tmp_path}/shard"


def test_container_is_given_names_of_variables_and_no_values(tmp_path: Path) -> None:
    spec = tgi_spec(tmp_path, prefix=("docker", "run", "{environment}", "image"), command="tgi")
    command = tgi.server_command(spec, port=1, variables=("API_KEY", "TRUST_REMOTE_CODE"))
    assert command[:8] == ("docker", "run", "--env", "API_KEY", "--env", "TRUST_REMOTE_CODE", "image", "tgi")


def test_what_info_tells_is_read_and_what_it_leaves_out_is_absent() -> None:
    assert tgi.read_info({"max_total_tokens": 2048, "model_id": "x", "max_input_tokens": None}) == {
        "max_total_tokens": 2048
    }


def test_started_tgi_is_proven_asked_and_ended_with_all_of_it(tmp_path: Path) -> None:
    spec = tgi_spec(tmp_path)
    server = TgiEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    try:
        assert server.versions["tgi"] == VERSION
        assert server.effective["max_total_tokens"] == 2048
        assert server.sanity().strip()
        server.check_alive()
        assert server.counters() == {}
        port = int(server.base_url.rpartition(":")[2])
        assert ports.listeners(port) <= server.pids()
        request = urllib.request.Request(f"{server.base_url}/generate", data=b"{}")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request)
    finally:
        server.stop()
    assert server.pids() == set()
    stored = json.loads((Path(spec.folder) / "engine-1-0.command.json").read_text())
    assert "API_KEY" not in stored["environment"]
    assert server.api_key not in json.dumps(stored)


@pytest.mark.parametrize(
    ("fault", "failure", "words"),
    [
        ("misnamed", FailureClass.WRONG_ENGINE, "it serves 'another/model'; expected"),
        ("stubborn", FailureClass.WRONG_ENGINE, "max_total_tokens: asked 2048, runs 999"),
    ],
)
def test_tgi_that_is_not_what_was_asked_for_is_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, failure: FailureClass, words: str
) -> None:
    monkeypatch.setenv("STANDIN", fault)
    with pytest.raises(MeasurementError, match=words) as caught:
        TgiEngine().start(tgi_spec(tmp_path), PLACEMENT, restart=0, cancelled=never)
    assert caught.value.failure is failure
    assert process.marked(process.OUTPUTS_MARK, str(tmp_path.resolve())) == []


def test_tgi_that_dies_at_its_start_gives_its_own_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "die")
    with pytest.raises(EngineError, match="HIP out of memory") as caught:
        TgiEngine().start(tgi_spec(tmp_path), PLACEMENT, restart=0, cancelled=never)
    assert caught.value.failure is FailureClass.OUT_OF_MEMORY


def test_tgi_in_container_is_proven_by_its_key(tmp_path: Path) -> None:
    prefix = (str(write_container_tool(tmp_path / "tool")), "run", "{environment}")
    server = TgiEngine().start(tgi_spec(tmp_path, prefix=prefix), PLACEMENT, restart=0, cancelled=never)
    try:
        assert server.sanity()
        # Before and after every load.
        server.prove_ours()
    finally:
        server.stop()
    with pytest.raises(EngineError, match="ended"):
        server.prove_ours()


def test_tgi_in_image_whose_processes_are_unseen_is_proven_where_it_asks_for_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As of a container of root's, seen from a user: nobody is seen to listen.
    monkeypatch.setattr(contained, "is_unseen", lambda process, port: True)
    monkeypatch.setattr(ports, "listeners", lambda port: set())
    server = TgiEngine().start(tgi_spec(tmp_path), PLACEMENT, restart=0, cancelled=never)
    try:
        assert server.prove_ours() == server.pids()
    finally:
        server.stop()
    monkeypatch.setenv("STANDIN", "keyless")
    with pytest.raises(MeasurementError, match=r"wrong key with status 200 .* End the other program"):
        TgiEngine().start(tgi_spec(tmp_path), PLACEMENT, restart=0, cancelled=never)


def test_variable_that_plan_let_pass_is_given_to_server(tmp_path: Path) -> None:
    spec = tgi_spec(tmp_path, assignment={"MY_OWN_SWITCH": 1})
    assert tgi.check(spec.assignment)
    server = TgiEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    try:
        stored = json.loads((Path(spec.folder) / "engine-1-0.command.json").read_text())
        assert stored["environment"]["MY_OWN_SWITCH"] == "1"
    finally:
        server.stop()


def test_server_that_takes_any_key_is_not_believed_to_be_our_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "keyless")
    prefix = (str(write_container_tool(tmp_path / "tool")), "run", "{environment}")
    with pytest.raises(MeasurementError, match="answers a wrong key with status 200"):
        TgiEngine().start(tgi_spec(tmp_path, prefix=prefix), PLACEMENT, restart=0, cancelled=never)


def test_missing_program_is_named_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"engine.command: there is no program no-such-launcher"):
        tgi.find_program(EngineSpec(kind="tgi", release="0.33.0", command="no-such-launcher"))
    with pytest.raises(ConfigError, match=r"engine.prefix: there is no program no-such-docker"):
        tgi.find_program(EngineSpec(kind="tgi", release="0.33.0", prefix=("no-such-docker", "run")))
    assert tgi.find_program(EngineSpec(kind="tgi", release="0.33.0", command="sh")).endswith("/sh")

"""No key is accepted that is not acted on: each is placed, walked through all kinds of runs, seen to act.

The walk stands in ``key_walk``, its page in ``docs/keys.md``.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sweeper import cli, config
from sweeper.config import unused
from sweeper.config.effect import Run
from sweeper.config.effect_table import EFFECTS
from sweeper.errors import ConfigError
from sweeper.prepare import node as prepare
from sweeper.prepare.planner import planner_of
from sweeper.prepare.platform import Choice
from sweeper.records import ClientSpec, EngineSpec, Platform, TrialSpec, TrialState
from sweeper.trial import trial
from tests import key_walk
from tests.clients.test_vllm_offline import LATENCY
from tests.clients.test_vllm_offline import make as offline_spec
from tests.engines.test_attach import KEY, attached_spec, running  # noqa: F401 - a fixture
from tests.engines.test_tgi import tgi_spec
from tests.standin_server import PLACEMENT, make_spec, never, write_interpreter
from tests.standin_sglang import sglang_spec

_Spec = TypeVar("_Spec")


def settled(*overrides: str, platform: Platform = Platform.MI300X) -> config.Settings:
    composed = config.compose_run([*overrides, f"platform={platform}"])
    return config.settings(composed, platform=platform)


# Where each key acts is said, and said truly


def test_every_key_is_placed_once_and_no_other() -> None:
    placed = Counter(key for effect in EFFECTS for key in effect.keys)
    assert placed == Counter(unused.patterns()), "place a new key in sweeper/config/effect_table.py"


def test_what_every_key_does_in_every_kind_of_run_is_what_page_says() -> None:
    written = key_walk.TABLE.read_text(encoding="utf-8")
    assert key_walk.markdown() == written, "look at what moved; python -m tests.key_walk writes the page anew"


@pytest.mark.parametrize("case", key_walk.IMPOSSIBLE, ids=lambda case: case.title)
def test_engine_is_not_paired_with_what_would_start_another(case: key_walk.Case) -> None:
    with pytest.raises(ConfigError, match=r"^(engine|client)\.kind: is '"):
        settled(*case.overrides, platform=case.platform)


@pytest.mark.parametrize(
    "case", [key_walk.RUNS[0], key_walk.RUNS[3], key_walk.LOADS[1]], ids=lambda c: c.title
)
def test_refusal_names_its_key_and_what_to_do(case: key_walk.Case) -> None:
    for pattern, (outcome, sentence) in key_walk.outcomes(case).items():
        if outcome == key_walk.REFUSED:
            assert sentence.split(":")[0].split(".")[0] == pattern.split(".")[0], sentence
            assert sentence.endswith(".") and sentence.count(". ") >= 1, sentence


@pytest.mark.parametrize("key", sorted(key_walk.COMPANIONS))
def test_key_that_needs_another_is_refused_without_it(key: str) -> None:
    composed = config.compose_run(["workload=random", "platform=mi300x", "search.stops_early=false"])
    *parents, last = key.split(".")
    node: Any = composed
    for parent in parents:
        node = node[parent]
    node[last] = key_walk.value_of(key)
    with pytest.raises(ConfigError, match=rf"^{key}: is "):
        config.settings(composed, platform=Platform.MI300X)


REFUSALS = {
    "words before vLLM": (
        ["engine.prefix=[docker,run]"],
        "engine.prefix: is ['docker', 'run'], and engine.kind is 'vllm'; expected none, since only",
    ),
    "two ways into a container": (
        ["engine=tgi", "engine.image=tgi:3", "engine.prefix=[docker,run,tgi:3]"],
        "engine.image: is given together with engine.prefix=['docker', 'run', 'tgi:3']; expected one way",
    ),
    "a container for an engine inside its benchmark": (
        ["client=offline", "workload.dataset=latency", "engine.image=vllm:1"],
        "engine.image: is 'vllm:1', and client.kind is 'offline', whose benchmark has the engine inside it,",
    ),
    "a container for what runs already": (
        ["engine=attach", "engine.url=http://127.0.0.1:8000", "engine.image=vllm:1"],
        "engine.image: is 'vllm:1', and engine.kind is 'attach': the endpoint runs already,",
    ),
    "words for a container without one": (
        ["engine.container_arguments=[--privileged]"],
        "engine.container_arguments: is ['--privileged'], and no image is named; expected a container",
    ),
    "a secret in a container's command line": (
        ["engine.image=vllm:1", "engine.container_arguments=[--env,'HF_TOKEN=hf_abc']"],
        "engine.container_arguments: gives 'HF_TOKEN' a value, which every user of the machine could read;",
    ),
    "a budget for a grid": (
        ["search.trials=3"],
        "search.trials: is 3, and search.method is 'grid', which measures every point of the space.",
    ),
    "a rate for a batch": (
        ["client=offline", "workload.dataset=latency", "workload.request_rate_per_s=[1,2]"],
        "workload.request_rate_per_s: is [1, 2], and dataset 'latency' is handed over all at once",
    ),
    "a file for random tokens": (
        ["workload.dataset_path=/x.json"],
        "workload.dataset_path: is '/x.json', and dataset 'random' is drawn and read from no file.",
    ),
    "prompts of another length in a point of ShareGPT": (
        ["workload.points=[{dataset: sharegpt, input_len: 9}, {num_prompts: 3}]"],
        "workload.points[0].input_len: is 9, and dataset sharegpt has prompts of its own lengths.",
    ),
    "a number that every point overrides": (
        ["workload.points=[{num_prompts: 3}, {num_prompts: 4}]", "workload.num_prompts=9"],
        "workload.num_prompts: is 9, and each of workload.points says its own;",
    ),
    "trust for the client alone": (
        ["client.trust_remote_code=true"],
        "client.trust_remote_code: is True, and engine.kind is 'vllm', whose knob trust_remote_code reaches",
    ),
    "repeats of an endpoint": (
        ["engine=attach", "engine.url=http://127.0.0.1:8000", "repeats=3"],
        "repeats: is 3, and engine.kind is 'attach', whose endpoint is never started anew;",
    ),
    "a cluster for this process": (
        ["executor=inline", "executor.address=auto"],
        "executor.address: is 'auto', and executor.kind is 'inline'",
    ),
    "instances without a server": (
        ["client=offline", "workload.dataset=latency", "knobs.instances=2"],
        "client.kind: is 'offline', and the knob instances is given;",
    ),
    "a calibration of a measured grid": (
        ["calibration.gemm_frac=0.5"],
        "calibration.gemm_frac: is 0.5, and nothing is modelled on platform mi300x with search=grid;",
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_would_be_ignored_is_refused_with_reason(refusal: str) -> None:
    overrides, message = REFUSALS[refusal]
    with pytest.raises(ConfigError) as caught:
        settled("workload=random", *overrides)
    assert str(caught.value).startswith(message)


def test_what_shipped_file_brings_along_is_nobodys_wish() -> None:
    offline = ("client=offline", "workload=random", "workload.dataset=throughput")
    assert settled(*offline).warmup_prompts == 8, "as conf/workload/random.yaml says"
    with pytest.raises(ConfigError, match=r"workload.warmup_prompts: is 9, and client.kind is 'offline'"):
        settled(*offline, "workload.warmup_prompts=9")


def test_simulated_run_takes_measured_ones_configuration_and_says_what_it_leaves_out() -> None:
    given = (
        "workload=random",
        "engine.python=/opt/bin/python",
        "client.script=/b",
        "engine.load_timeout_s=9",
    )
    assert settled(*given).left_out == ()
    assert settled(*given, platform=Platform.SIMULATED).left_out == (
        "left out: engine.python, engine.load_timeout_s, client.script: nothing is started on the simulated "
        "platform",
    )


def test_endpoint_and_grid_say_what_they_leave_out() -> None:
    attached = settled(
        "engine=attach", "engine.url=http://x:1", "workload=random", "knobs.max_model_len=1024"
    )
    assert attached.left_out == (
        "left out: knobs.max_model_len: engine.kind is 'attach', and an endpoint that already runs keeps its "
        "own settings",
    )
    grid = settled(
        "+experiment=tune_70b_throughput", "search=random", "space.knobs.NCCL_MIN_NCHANNELS=32,112"
    )
    assert grid.left_out == ("left out: search.start: search=random chooses by itself what comes first",)


def test_knob_of_all_settings_that_space_gives_other_values_is_said() -> None:
    varied = settled("+experiment=tune", "knobs.tensor_parallel_size=4", "knobs.max_model_len=9000")
    assert varied.left_out == (
        "left out: knobs.tensor_parallel_size: space.knobs.tensor_parallel_size varies it. Pin it with "
        "'~space.knobs.tensor_parallel_size'",
    )
    series = settled("+experiment=case2_sched_steps", "knobs.num_scheduler_steps=5")
    assert series.left_out == ("left out: knobs.num_scheduler_steps: each series has its own",)


def test_line_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = ("+experiment=case2_sched_steps", "platform=simulated", "plan=true", "engine.binds_numa=false")
    assert cli.main(sweep) == cli.OK
    assert "left out: engine.binds_numa: nothing is started on the simulated" in capsys.readouterr().out


# What is said to act, acts: settings of engine and client are read while a trial runs


def watched(spec: _Spec, seen: set[str], prefix: str) -> _Spec:
    """Make a record note which of its fields the product reads; copying, hashing and storing read nothing."""
    names = {field.name for field in fields(spec)}  # type: ignore[arg-type]

    class Watched(type(spec)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            reader = sys._getframe(1).f_globals["__name__"]
            if name in names and reader.startswith("sweeper.") and not reader.startswith("sweeper.records"):
                seen.add(f"{prefix}.{name}")
            return super().__getattribute__(name)

    return Watched(**{name: getattr(spec, name) for name in names})  # type: ignore[no-any-return]


def read_in(spec: TrialSpec) -> set[str]:
    """Run a trial, and give the keys of engine and client that were read for it."""
    seen: set[str] = set()
    spec = replace(
        spec,
        engine=watched(spec.engine, seen, "engine"),
        client=watched(spec.client, seen, "client"),
        warmup_prompts=2,
    )
    result = trial.run(spec, PLACEMENT, cancelled=never)
    assert result.state is TrialState.COMPLETE, result.failure_message
    return seen


# Read before or after a trial; what only several instances, or an old release, have; and the limit of a
# server that listens and is not healthy yet, which a stand-in may be too quick for (see test_vllm.py).
_ELSEWHERE = {
    *("engine.kind", "engine.release", "engine.allow_unknown", "engine.instances_by", "engine.live"),
    "client.kind",
    *("client.script", "engine.stop_timeout_s", "engine.ready_timeout_s"),
    # The record holds them as its container, which runs in tests/engines/test_containers_real.py.
    *("engine.image", "engine.container_runtime", "engine.container_arguments"),
}


def acting(spec: TrialSpec, *overrides: str) -> set[str]:
    """Name the keys of engine and client that are said to act."""
    root = config.compose_run(["workload=random", *overrides, "platform=cpu"])
    run = Run(root=root, platform=spec.platform, datasets=frozenset(p.dataset for p in spec.load_points))
    # A name below client.arguments is read with the others.
    keys = {key.removesuffix(".*") for effect in EFFECTS for key in effect.keys if not effect.idle_in(run)}
    return {key for key in keys if key.startswith(("engine.", "client."))} - _ELSEWHERE


def test_vllm_reads_what_is_said_to_act_for_it(tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "outputs", write_interpreter(tmp_path / "bin"))
    said = acting(spec)
    assert {"engine.start_timeout_s", "engine.load_timeout_s", "client.start_timeout_s"} <= said
    read = read_in(spec)
    assert said <= read
    assert not read & {"engine.prefix", "engine.command", "engine.url", "engine.api_key_env"}


def test_tgi_reads_what_is_said_to_act_for_it(tmp_path: Path) -> None:
    made = tgi_spec(tmp_path)
    python = str(write_interpreter(tmp_path / "python"))
    spec = replace(made, engine=replace(made.engine, python=python))
    said = acting(spec, "engine=tgi")
    assert {"engine.command", "engine.prefix"} <= said
    assert said <= read_in(spec)


def test_sglang_reads_what_is_said_to_act_for_it(tmp_path: Path) -> None:
    made = sglang_spec(tmp_path)
    spec = replace(made, client=replace(made.client, python=str(write_interpreter(tmp_path / "python"))))
    said = acting(spec, "engine=sglang")
    assert {"engine.python", "engine.allow_unknown"} & said
    assert not {"engine.command", "engine.prefix", "engine.url"} & said
    assert said <= read_in(spec)


def test_attached_endpoint_reads_what_is_said_to_act_for_it(
    tmp_path: Path,
    running: tuple[str, Any],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    made = attached_spec(tmp_path / "outputs", running[0])
    spec = replace(made, engine=replace(made.engine, python=str(write_interpreter(tmp_path / "python"))))
    said = acting(spec, "engine=attach", f"engine.url={running[0]}")
    assert {"engine.url", "engine.api_key_env", "engine.launch_timeout_s"} <= said
    read = read_in(spec)
    assert said <= read
    assert not read & {"engine.prefix", "engine.command", "engine.start_timeout_s", "engine.free_timeout_s"}


def test_benchmarks_without_server_read_what_is_said_to_act_for_them(tmp_path: Path) -> None:
    spec = offline_spec(tmp_path, release="0.11.0", points=(LATENCY,))
    said = acting(spec, "client=offline", "workload.dataset=latency")
    assert {"engine.start_timeout_s", "engine.load_timeout_s"} <= said
    read = read_in(spec)
    assert said <= read
    assert not read & {"engine.ready_timeout_s", "engine.sanity_timeout_s", "engine.warmup_timeout_s"}


# ... and what is planned moves when the others move


BASE = (
    *("workload=random", "workload.num_prompts=8", "knobs.tensor_parallel_size=2"),
    *("space.knobs.max_num_seqs=4,8", "engine.release=0.32.0", "knobs.enable_prefix_caching=true"),
)
MOVES_THE_PLAN = {
    "study.outputs": "elsewhere",
    "study.name": "other",
    "study.control": "base",
    "platform.devices": 1,
    "platform.device_ids": "[0,1]",
    "platform.device": "h100",
    "platform.calibration": "article_0_6_2",
    "platform.partition_mode": "CPX",
    "engine.release": "0.20.0",
    "model.name": (
        *("model.name=org/other", "model.path=org/other"),
        "model.shape={layers: 8, hidden: 64, intermediate: 128, heads: 4, kv_heads: 4, head_dim: 16,"
        " vocab: 99, max_positions: 4096}",
    ),
    "model.dtype": "fp8",
    "model.is_dummy": "true",
    "model.revision": "abc",
    "workload.dataset": "sharegpt workload.input_len=null",
    "workload.num_prompts": 9,
    "workload.request_rate_per_s": "[3]",
    "workload.max_concurrency": 3,
    "workload.input_len": 9,
    "workload.output_len": 9,
    "workload.range_ratio": 0.5,
    "workload.ignore_eos": "false",
    "workload.client_seed": 9,
    "workload.warmup_prompts": 9,
    "workload.second_run": "true",
    "workload.points": "[{input_len: 9}, {input_len: 10}]",
    "workload.goodput.ttft_ms": 100,
    "workload.max_users.high": (
        *("workload.max_users.high=8", "workload.max_users.bounds.p99_ttft_ms=5"),
        *("workload.request_rate_per_s=null", "objective.throughput.metric=max_users"),
    ),
    "workload.options.prefix_len": ("+workload.options.prefix_len=64",),
    "workload.prompts_per_user": ("workload.prompts_per_user=3", "workload.max_concurrency=[1,4]"),
    "workload.warmup_per_user": ("workload.warmup_per_user=2", "workload.max_concurrency=[1,4]"),
    "workload.burstiness": ("workload.burstiness=0.5", "workload.request_rate_per_s=[3]"),
    "workload.ramp_up": ("workload.ramp_up.start_per_s=1", "workload.ramp_up.end_per_s=9"),
    "workload.endpoint": "chat",
    "workload.sampling.top_p": ("+workload.sampling.top_p=0.9",),
    "workload.extra_body": ("workload.extra_body={min_tokens: 3}",),
    "client.arguments.num_warmups": ("+client.arguments.num_warmups=3",),
    "client.kind": "locust workload.request_rate_per_s=[1]",
    "knobs.max_model_len": 4096,
    "space.knobs.max_num_seqs": "[4]",
    "space.knobs.block_size": "[16,32]",
    "space.rules": "['max_num_seqs < 5']",
    "calibration.gemm_frac": 0.123,
    "repeats": 2,
    "runs_per_start": 2,
}


def planned(*overrides: str) -> tuple[object, ...]:
    """Say what would be started: keys, devices, folders and refusals of all trials, with the controls."""
    found = settled(*BASE, *overrides, platform=Platform.SIMULATED)
    choice = Choice(platform=Platform.SIMULATED, reason="asked for", node=None)
    planner = planner_of(found, prepare.read_node(found, choice))
    jobs = planner.grid()
    told = [(job.spec.key, job.spec.devices_wanted, job.spec.folder, str(job.refusal)) for job in jobs]
    return (told, len(planner.controls(len(jobs))), len(planner.node.devices))


@pytest.fixture(scope="module")
def usual() -> tuple[object, ...]:
    return planned()


@pytest.mark.parametrize("key", MOVES_THE_PLAN)
def test_another_value_plans_something_else(key: str, usual: tuple[object, ...]) -> None:
    moved = MOVES_THE_PLAN[key]
    if isinstance(moved, tuple):
        words = list(moved)
    else:
        first, *more = str(moved).split(" workload.")
        words = [f"{key}={first}", *(f"workload.{text}" for text in more)]
    assert planned(*words) != usual


# One owner of each default


def test_default_is_written_once() -> None:
    for record, of_schema in (
        (EngineSpec, config_defaults("engine")),
        (ClientSpec, config_defaults("client")),
    ):
        for field in dataclasses.fields(record):
            if (
                field.name in of_schema
                and field.default is not dataclasses.MISSING
                and field.name != "prefix"
            ):
                assert of_schema[field.name] == field.default, field.name


def test_files_of_conf_repeat_defaults_that_they_show() -> None:
    for engine in ("vllm", "sglang", "tgi"):
        composed = config.compose_run([f"engine={engine}", "platform=cpu"])["engine"]
        shown = {name: value for name, value in composed.items() if name.endswith("_s")}
        assert shown == {name: config_defaults("engine")[name] for name in shown}


def config_defaults(group: str) -> dict[str, Any]:
    found = {key.removeprefix(f"{group}."): value for key, value in unused.defaults().items()}
    return {
        key: value for key, value in found.items() if "." not in key and f"{group}.{key}" in unused.defaults()
    }

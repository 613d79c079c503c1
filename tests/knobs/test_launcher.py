"""What the sweeper gives its servers is no knob; the list of it is held against what is really given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import knobs
from sweeper.engines import tgi, vllm, vllm_environment, vllm_offline
from sweeper.processes import masks
from sweeper.processes.process import Process
from sweeper.records import EngineSpec, Model, Platform, TrialSpec
from tests.knobs.asking import only_refusal
from tests.standin_server import PLACEMENT, POINT, make_spec

OWNER = Process(12, 3456)

# Given unless an assignment says otherwise, and then it holds.
CHOSEN_BY_ASSIGNMENTS = {
    *("VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND", "HF_HUB_OFFLINE"),
    "VLLM_ENGINE_READY_TIMEOUT_S",
}
# Whether a knob may say it depends on the model.
BY_THE_MODEL = {"load_format"}


@pytest.fixture
def spec(tmp_path: Path) -> TrialSpec:
    """A trial whose command has all that it can have: a revision on the hub, and random weights."""
    found = make_spec(tmp_path, "python", assignment={})
    hub = Model(
        name="llama", path="meta-llama/Llama-3.1-8B", shape=found.model.shape, revision="abc", is_dummy=True
    )
    return replace(found, model=hub)


def flags(command: tuple[str, ...]) -> set[str]:
    return {word.removeprefix("--").replace("-", "_") for word in command if word.startswith("--")}


def test_every_flag_that_vllm_server_is_given_is_refused_as_knob(spec: TrialSpec) -> None:
    given = flags(vllm.server_command(spec, python="python", port=1))
    assert given == {*("model", "served_model_name", "host", "port", "revision"), "load_format"}
    assert given - BY_THE_MODEL <= set(knobs.GIVEN_FLAGS)
    for knob in given - BY_THE_MODEL:
        refusal = only_refusal({knob: "x"}, "0.32.0", allow_unknown=True)
        assert refusal.is_mistake
        assert "whoever starts the server gives it" in refusal.reason


def test_every_flag_of_model_that_offline_benchmark_is_given_is_refused(
    spec: TrialSpec, tmp_path: Path
) -> None:
    point = replace(POINT, dataset="throughput")
    given = flags(
        vllm_offline.benchmark_arguments(spec, point, result=tmp_path / "r.json", has_random_lengths=False)
    )
    of_the_engine = given & set(knobs.known_names("0.32.0"))
    # The seed is the load point's, unless an assignment has one: then that one alone is given.
    assert of_the_engine - BY_THE_MODEL - {"seed"} <= set(knobs.GIVEN_FLAGS)


def test_every_flag_that_tgi_server_is_given_is_refused_as_knob(spec: TrialSpec) -> None:
    on_tgi = replace(spec, engine=EngineSpec(kind="tgi", release="0.32.0"))
    given = flags(tgi.server_command(on_tgi, port=1))
    assert given == {"model_id", "revision", "hostname", "port"}
    for knob in given:
        (refusal,) = tgi.check({knob: "x"}, allow_unknown=True)
        assert "whoever starts the server gives it" in refusal


@pytest.mark.parametrize("platform", [Platform.MI300X, Platform.CUDA, Platform.CPU])
def test_every_variable_that_server_is_given_is_refused_as_knob(
    spec: TrialSpec, platform: Platform, tmp_path: Path
) -> None:
    local = replace(spec.model, path=str(tmp_path))
    given = vllm_environment.server_environment(
        replace(spec, platform=platform, model=local),
        PLACEMENT,
        surroundings={"HOME": "/home/me"},
        python="/venv/bin/python",
        api_key="k3y",
        owner=OWNER,
        stub=tmp_path,
    )
    upper = {name for name in given if knobs.is_variable(name)}
    for name in upper - CHOSEN_BY_ASSIGNMENTS - {"HOME"}:
        refusal = knobs.refuse_given(name, "1")
        assert refusal is not None, name
        assert refusal.is_mistake
    for name in CHOSEN_BY_ASSIGNMENTS:
        assert knobs.refuse_given(name, "1") is None


@pytest.mark.parametrize(
    "name",
    [
        *("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"),
        *("NVIDIA_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "ASCEND_RT_VISIBLE_DEVICES"),
    ],
)
def test_whatever_hides_devices_is_refused_and_points_to_key(name: str) -> None:
    assert masks.is_mask(name)
    assert "platform.device_ids" in only_refusal({name: "0,1"}, "0.32.0", allow_unknown=True).reason


def test_switch_of_ray_about_masks_is_none() -> None:
    name = "RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES"
    assert not masks.is_mask(name)
    assert knobs.refuse_given(name, 1) is None


@pytest.mark.parametrize(
    ("knob", "instead"),
    [
        ("served_model_name", "model.name"),
        ("revision", "model.revision"),
        ("VLLM_SERVER_DEV_MODE", "it is always 1"),
        ("VLLM_CACHE_ROOT", "Export it before the start"),
        ("VLLM_PORT", "free ports"),
        ("VLLM_DP_SIZE", "data_parallel_size"),
        ("PYTHONPATH", "engine.python"),
        ("ssl_keyfile", "plain HTTP"),
        ("data_parallel_rank", "instances"),
        ("SWEEPER_DEVICE_MASK", "the sweeper's own"),
    ],
)
def test_refusal_says_what_to_use_instead(knob: str, instead: str) -> None:
    assert instead in only_refusal({knob: "x"}, "0.32.0").reason


def test_random_weights_are_said_of_model_and_nowhere_else() -> None:
    real = knobs.refuse_load_format("dummy", is_dummy=False)
    assert real is not None and "model.is_dummy=true" in real.reason
    made = knobs.refuse_load_format("safetensors", is_dummy=True)
    assert made is not None and "Take it out" in made.reason
    assert knobs.refuse_load_format("safetensors", is_dummy=False) is None
    assert knobs.refuse_load_format("dummy", is_dummy=True) is None


def test_file_named_from_where_a_study_starts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "own.jinja").write_text("{{ messages }}", encoding="utf-8")
    near = knobs.refuse_near_path("chat_template", "templates/own.jinja")
    assert near is not None and f"Write {tmp_path}/templates/own.jinja" in near.reason
    assert near.is_mistake
    for fine in (f"{tmp_path}/templates/own.jinja", "meta-llama/Llama-3.1-8B", "auto", 8):
        assert knobs.refuse_near_path("chat_template", fine) is None

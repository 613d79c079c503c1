"""What must be there before the first trial, and what is said when it is not."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import config, topology
from sweeper.errors import ConfigError, PlacementError
from sweeper.prepare import interpreter, platform
from sweeper.prepare import node as prepare
from sweeper.prepare.model import from_anywhere, provide_model, with_models
from sweeper.prepare.platform import Choice, compose_for_platform
from sweeper.records import Model, Platform, Questions
from sweeper.space.space import Series
from tests.stand_ins import planner_of_three_series


def settings_for(platform: Platform, *overrides: str) -> config.Settings:
    return config.settings(config.compose_run([f"platform={platform}", *overrides]), platform=platform)


def test_platform_that_is_asked_for_is_taken() -> None:
    choice = platform.choose_platform("cpu")
    assert (choice.platform, choice.reason, choice.node) == (Platform.CPU, "asked for", None)


def test_unknown_platform_is_named_with_known_ones() -> None:
    with pytest.raises(ConfigError, match="'tpu' is not a platform; expected one of auto, mi300x, cuda, cpu"):
        platform.choose_platform("tpu")


def test_machine_without_gpus_is_simulated_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    choice = platform.choose_platform("auto")
    assert choice.platform is Platform.SIMULATED
    assert choice.reason.startswith("no AMD GPU answered (amd-smi: not found)")


def test_auto_becomes_what_machine_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    composed, choice = platform.compose_for_platform(["+experiment=case2_sched_steps"], config_dir=None)
    assert choice.platform is Platform.SIMULATED
    assert composed["platform"]["name"] == "simulated"
    assert (
        prepare.read_node(config.settings(composed, platform=choice.platform), choice).partition_mode == "SPX"
    )


def test_experiment_for_node_is_scaled_down_on_cpu_and_one_for_cpu_is_not() -> None:
    large, _ = platform.compose_for_platform(
        ["+experiment=case1_chunked_prefill", "platform=cpu"], config_dir=None
    )
    assert large["model"]["path"] == "tiny"
    assert large["knobs"]["tensor_parallel_size"] == 1
    small, _ = platform.compose_for_platform(["+experiment=cpu_smoke"], config_dir=None)
    assert small["knobs"]["max_model_len"] == 1024


def test_value_of_command_line_outlives_scaling_down() -> None:
    composed, _ = platform.compose_for_platform(
        ["+experiment=case1_chunked_prefill", "platform=cpu", "workload.num_prompts=7"], config_dir=None
    )
    assert composed["workload"]["num_prompts"] == 7


def test_modelled_node_is_in_mode_that_is_asked_for() -> None:
    asked = settings_for(Platform.SIMULATED, "platform.partition_mode=CPX", "platform.memory_mode=NPS4")
    node = prepare.read_node(asked, platform.choose_platform("simulated"))
    assert len(node.devices) == 64
    assert (node.partition_mode, node.memory_mode) == ("CPX", "NPS4")


def test_node_in_another_mode_is_refused_with_commands_that_change_it() -> None:
    asked = replace(settings_for(Platform.MI300X), insisted=("CPX", "NPS4"))
    found = Choice(platform=Platform.MI300X, reason="test", node=topology.modelled_mi300x("SPX", "NPS1"))
    with pytest.raises(
        PlacementError, match=r"is in partition mode SPX; the experiment asks for CPX"
    ) as caught:
        prepare.read_node(asked, found)
    assert "amd-smi set" in str(caught.value)
    assert "CPX" in str(caught.value)


def test_cpu_node_has_as_many_devices_as_asked() -> None:
    node = prepare.read_node(
        settings_for(Platform.CPU, "platform.devices=1"), platform.choose_platform("cpu")
    )
    assert len(node.devices) == 1


def test_study_may_use_only_some_devices_of_node() -> None:
    asked = replace(settings_for(Platform.MI300X), devices=4)
    found = Choice(platform=Platform.MI300X, reason="test", node=topology.modelled_mi300x())
    assert [d.index for d in prepare.read_node(asked, found).devices] == [0, 1, 2, 3]


def test_gpus_that_do_not_answer_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for wanted in (Platform.MI300X, Platform.CUDA):
        with pytest.raises(PlacementError, match=f"platform={wanted}: .*or use platform=simulated"):
            prepare.read_node(settings_for(wanted), platform.choose_platform(str(wanted)))


def test_engines_interpreter_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SWEEPER_VLLM_PYTHON", raising=False)
    asked = settings_for(Platform.CPU)
    with pytest.raises(ConfigError, match="python -m sweeper cpu-vllm"):
        interpreter.find_engine_python(asked)

    command = tmp_path / "vllm"
    command.write_text(f"#!{sys.executable}\n")
    command.chmod(0o755)
    assert interpreter.find_engine_python(asked) == sys.executable

    local = tmp_path / ".venv-vllm" / "bin" / "python"
    local.parent.mkdir(parents=True)
    local.symlink_to(sys.executable)
    assert interpreter.find_engine_python(asked) == str(local)

    monkeypatch.setenv("SWEEPER_VLLM_PYTHON", "from-environment")
    assert interpreter.find_engine_python(asked) == "from-environment"

    given = replace(asked, engine=replace(asked.engine, python="given"))
    assert interpreter.find_engine_python(given) == "given"


def test_on_gpu_node_missing_interpreter_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SWEEPER_VLLM_PYTHON", raising=False)
    with pytest.raises(ConfigError, match=r"engine\.python=/path/to/bin/python"):
        interpreter.find_engine_python(settings_for(Platform.MI300X))


def test_tiny_model_is_made_where_it_is_needed(tmp_path: Path) -> None:
    asked = replace(settings_for(Platform.CPU, "model=tiny_llama"), outputs=tmp_path)
    model = provide_model(asked)
    assert (Path(model.path) / "config.json").is_file()
    assert (model.name, model.is_dummy) == ("tiny-llama", True)
    assert model.shape == asked.model.shape
    modelled = provide_model(
        replace(settings_for(Platform.SIMULATED, "model=tiny_llama"), outputs=tmp_path / "none")
    )
    assert modelled.revision == model.revision
    assert not (tmp_path / "none").exists()


def test_folder_of_a_model_is_named_in_full_for_an_engine_that_runs_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    model = replace(settings_for(Platform.CPU, "model=tiny_llama").model, path="own")
    assert from_anywhere(model).path == str(tmp_path / "own")
    assert from_anywhere(replace(model, path="org/own")).path == "org/own"
    series = Series(name="other", label="other", knobs={}, model=model)
    space = replace(settings_for(Platform.CPU).space, series=(series,))
    (found,) = with_models(space, from_anywhere).series
    assert found.model is not None and found.model.path == str(tmp_path / "own")


def test_hub_model_is_left_as_it_is() -> None:
    asked = settings_for(Platform.SIMULATED)
    assert provide_model(asked) == asked.model


def test_experiment_for_any_model_is_scaled_down_for_a_tiny_one_too() -> None:
    asked = ["platform=cpu", "model=tiny_llama"]
    tuned, _ = compose_for_platform(["+experiment=tune", *asked], config_dir=None)
    assert tuned["knobs"]["enforce_eager"] is True
    assert (tuned["search"]["trials"], tuned["workload"]["num_prompts"]) == (6, 24)
    # One that was written for this platform is taken as it is.
    own, _ = compose_for_platform(["+experiment=tune_cpu", *asked], config_dir=None)
    assert own["search"]["trials"] == 16


def test_every_file_that_trials_open_is_asked_of_the_nodes_of_a_cluster(
    tmp_path: Path, llama_70b: Model
) -> None:
    def made(name: str) -> str:
        (tmp_path / name).write_text("")
        return str(tmp_path / name)

    planner = planner_of_three_series(tmp_path, llama_70b)
    first, *others = planner.space.series
    own = replace(first, model=replace(llama_70b, path=made("model")))
    needed = prepare.needed_paths(
        replace(
            planner,
            engine=replace(planner.engine, python=made("vllm")),
            others={"sglang": replace(planner.engine, python=made("sglang"))},
            client=replace(planner.client, script=made("script")),
            accuracy=Questions(path=made("questions"), python=made("lm_eval")),
            space=replace(planner.space, series=(own, *others)),
        )
    )
    # The model of the others is an id of the hub.
    assert {Path(path).name: key for path, key in needed.items()} == {
        "vllm": "engine.python",
        "sglang": "python of sglang",
        "model": f"space.series.{own.name}.model.path",
        "script": "client.script",
        "questions": "accuracy.path",
        "lm_eval": "accuracy.python",
    }

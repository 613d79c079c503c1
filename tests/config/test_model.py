"""A model's name and path, and what describes it, travel together through every way of writing them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import cli, config
from sweeper.errors import ConfigError
from sweeper.models import tiny
from sweeper.models.quantization import ALL
from sweeper.records import Model, Platform, Quantization
from tests.stubbed_node import stub

LLAMA_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
SHAPE_OF_QWEN = "{layers: 28, hidden: 1536, intermediate: 8960, heads: 12, kv_heads: 2, head_dim: 128, "
SHAPE_OF_QWEN += "vocab: 151936, max_positions: 32768}"
# The model of serving_random is Llama 3.1 8B.
RANDOM = "+experiment=serving_random"


def model_of(*overrides: str, folder: Path | None = None, platform: Platform = Platform.MI300X) -> Model:
    composed = config.compose_run([*overrides, f"platform={platform}"], config_dir=folder)
    return config.settings(composed, platform=platform).model


def folder_of(tmp_path: Path, name: str = "copy", **changes: object) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**LLAMA_8B, **changes}))
    return folder


def conf_of(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        path = tmp_path / "conf" / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# @package _global_\n{text}" if not name.startswith("model__") else text)
    return tmp_path / "conf"


def says_only(found: Model, name: str) -> None:
    assert (found.name, found.shape, found.dtype) == (name, None, None)


def test_another_preset_is_taken_whole() -> None:
    found = model_of(RANDOM, "model=llama_3_1_405b_instruct_fp8")
    assert found.name == "meta-llama/Llama-3.1-405B-Instruct-FP8"
    # Its attention stays in 16 bits.
    assert found.quantization == Quantization(method="fbgemm_fp8", bits=8, parts=ALL - {"attention"})
    assert found.shape is not None
    assert found.shape.layers == 126


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.name=org/unknown", "model.path=org/unknown"],
        ["model.path=org/unknown"],
        ["model.name=org/unknown"],
    ],
)
def test_another_name_or_path_keeps_nothing_of_former_model(overrides: list[str]) -> None:
    found = model_of(RANDOM, *overrides)
    says_only(found, "org/unknown")
    assert found.path == "org/unknown"


def test_revision_and_dummy_weights_do_not_outlive_their_model() -> None:
    # tiny_llama says is_dummy: true; a revision is said beside it.
    base = ["+experiment=cpu_smoke", "model.path=org/other"]
    composed = config.compose_run([*base, "platform=cpu"])["model"]
    assert (composed["is_dummy"], composed["revision"], composed["shape"]) == (False, None, None)
    kept = config.compose_run([*base, "model.revision=abc", "platform=cpu"])["model"]
    assert kept["revision"] == "abc", "said in the same breath as the path"


@pytest.mark.parametrize("words", [["model.path=org/other"], ["model.path=org/o", "model.name=other"]])
def test_random_weights_that_an_experiment_asks_of_any_model_are_those_of_another_too(
    words: list[str],
) -> None:
    # gpu_check says model.is_dummy: true and names no model.
    base = ["+experiment=gpu_check", "platform=cuda", *words]
    assert config.compose_run(base)["model"]["is_dummy"] is True
    assert config.compose_run([*base, "model.is_dummy=false"])["model"]["is_dummy"] is False
    assert config.compose_run([*base, "model.dtype=float16"])["model"]["dtype"] == "float16"


def test_experiments_own_model_keeps_nothing_of_default(tmp_path: Path) -> None:
    own = conf_of(
        tmp_path,
        experiment__own="defaults: [{override /workload: random}]\n"
        "study: {experiment: own, question: 'How?'}\n"
        "model: {name: Qwen/Qwen2.5-1.5B-Instruct, path: Qwen/Qwen2.5-1.5B-Instruct}\n",
    )
    says_only(model_of("+experiment=own", folder=own), "Qwen/Qwen2.5-1.5B-Instruct")


def test_command_line_drops_what_experiment_said_of_its_own_model(tmp_path: Path) -> None:
    own = conf_of(
        tmp_path,
        experiment__own="defaults: [{override /workload: random}]\n"
        "study: {experiment: own, question: 'How?'}\n"
        f"model: {{name: a/b, path: a/b, dtype: float16, revision: r1, shape: {SHAPE_OF_QWEN}}}\n",
    )
    found = model_of("+experiment=own", folder=own)
    assert found.shape is not None
    assert (found.shape.layers, found.dtype, found.revision) == (28, "float16", "r1")
    other = model_of("+experiment=own", "model.path=c/d", folder=own)
    says_only(other, "c/d")
    assert other.revision is None


def test_experiment_drops_what_setting_said_of_its_model(tmp_path: Path) -> None:
    own = conf_of(
        tmp_path,
        setting__base=f"model: {{name: a/b, path: a/b, shape: {SHAPE_OF_QWEN}}}\n",
        experiment__own="defaults: [/setting: base, override /workload: random, _self_]\n"
        "study: {experiment: own, question: 'How?'}\n"
        "model: {name: c/d, path: c/d}\n",
    )
    says_only(model_of("+experiment=own", folder=own), "c/d")


def test_preset_that_takes_in_another_one_is_model_of_its_own(tmp_path: Path) -> None:
    own = conf_of(tmp_path, model__mine="defaults: [llama_3_1_8b]\nname: me/mine\npath: me/mine\n")
    says_only(model_of(RANDOM, "model=mine", folder=own), "me/mine")


def test_name_from_environment_is_compared_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_MODEL", "me/mine")
    says_only(model_of(RANDOM, "model.path=${oc.env:MY_MODEL}"), "me/mine")
    monkeypatch.setenv("MY_MODEL", "meta-llama/Llama-3.1-8B")
    assert model_of(RANDOM, "model.path=${oc.env:MY_MODEL}").shape is not None


def test_series_model_follows_same_rule() -> None:
    changed = "space.series.vllm_this_guide.model.path=org/other"
    composed = config.compose_run(["+experiment=intro_405b", changed, "platform=mi300x"])
    series = config.settings(composed, platform=Platform.MI300X).space.named("vllm_this_guide")
    assert series.model is not None
    says_only(series.model, "org/other")
    composed = config.compose_run(["+experiment=intro_405b", "platform=mi300x"])
    series = config.settings(composed, platform=Platform.MI300X).space.named("vllm_this_guide")
    assert series.model is not None
    assert series.model.quantization is not None
    assert series.model.quantization.method == "fbgemm_fp8"


def test_shape_given_with_name_is_its_own() -> None:
    given = ["model.name=a/b", "model.path=a/b", f"model.shape={SHAPE_OF_QWEN}"]
    found = model_of(RANDOM, *given)
    assert found.shape is not None
    assert (found.shape.layers, found.shape.kv_heads, found.dtype) == (28, 2, "bfloat16")
    with pytest.raises(ConfigError, match=r"model.shape: lacks hidden, intermediate, heads, kv_heads, .*Add"):
        model_of(RANDOM, "model.name=a/b", "model.path=a/b", "model.shape.layers=28")


def test_shape_is_not_changed_under_name_that_stays() -> None:
    with pytest.raises(
        ConfigError,
        match=r"command line: model.shape: is given layers=40, and model.name is still "
        r"meta-llama/Llama-3.1-8B, which has layers=32; expected a name of its own",
    ):
        model_of(RANDOM, "model.shape.layers=40")


def test_label_alone_would_go_to_model_that_was_there_before() -> None:
    with pytest.raises(ConfigError, match=r"model.name is 'my-llama', and model.path is not given with it"):
        model_of(RANDOM, "model.name=my-llama")


def test_local_copy_keeps_name_of_model_that_it_is(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    found = model_of(RANDOM, f"model.path={folder}")
    assert (found.name, found.path) == ("meta-llama/Llama-3.1-8B", str(folder))
    assert found.shape == model_of(RANDOM).shape


def test_folder_that_is_another_model_goes_by_its_own_name(tmp_path: Path) -> None:
    other = folder_of(tmp_path, "larger", num_hidden_layers=80)
    found = model_of(RANDOM, f"model.path={other}")
    assert found.shape is not None
    assert (found.name, found.shape.layers) == ("larger", 80)
    quantised = folder_of(tmp_path, "fp8", quantization_config={"quant_method": "fp8"})
    found = model_of(RANDOM, f"model.path={quantised}", platform=Platform.SIMULATED)
    assert (found.name, found.dtype) == ("fp8", "fp8")
    unread = folder_of(tmp_path, "moe", num_local_experts=8)
    found = model_of(RANDOM, f"model.path={unread}")
    says_only(found, "moe")
    assert "has 'num_local_experts' with model_type 'llama'" in str(found.no_shape_because)


def test_folder_of_another_name_is_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, num_hidden_layers=80, torch_dtype="float16")
    found = model_of(RANDOM, f"model.path={folder}", "model.name=mine", platform=Platform.SIMULATED)
    assert found.shape is not None
    assert (found.name, found.shape.layers, found.dtype) == ("mine", 80, "float16")


def test_what_is_given_beside_folder_must_be_what_folder_says(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    given = [f"model.path={folder}", "model.name=mine", f"model.shape={SHAPE_OF_QWEN}"]
    with pytest.raises(
        ConfigError, match=r"model: is given shape.layers=28 where the file has 32, .*Leave out"
    ):
        model_of(RANDOM, *given)
    with pytest.raises(ConfigError, match="model: is given dtype=fp8 where the file has bfloat16"):
        model_of(RANDOM, f"model.path={folder}", "model.name=mine", "model.dtype=fp8")


def test_model_that_is_made_here_describes_itself() -> None:
    found = model_of(RANDOM, "model.path=tiny", platform=Platform.SIMULATED)
    assert (found.name, found.shape, found.is_dummy) == ("tiny", tiny.SHAPE, True)


def test_simulated_number_needs_shape_and_says_whose(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["model.path=org/unknown", "model.name=mine"]
    assert cli.main([RANDOM, "platform=simulated", *names]) == cli.MISTAKE
    told = capsys.readouterr().err
    assert "model.config: is not given for mine (no config.json: 'org/unknown' is no" in told


def test_keys_of_shipped_models_are_what_they_were(tmp_path: Path) -> None:
    found = model_of(RANDOM)
    assert dict(found.identity) == {
        "name": "meta-llama/Llama-3.1-8B",
        "path": "meta-llama/Llama-3.1-8B",
        "shape": found.identity["shape"],
        "dtype": "bfloat16",
        "is_dummy": False,
        "revision": None,
    }
    assert replace(found, no_shape_because="none").identity == found.identity


@pytest.fixture
def mi300x(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A node in CPX/NPS4 by its recorded amd-smi, and an interpreter whose environment has vLLM 0.32.0."""
    return stub(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-1.5B-Instruct", "org/unknown"])
def test_measured_platform_refuses_nothing_for_shape_that_is_not_known(
    name: str, mi300x: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = conf_of(
        tmp_path,
        experiment__own="defaults: [{override /workload: random}]\n"
        "study: {experiment: own, question: 'How large a batch?'}\n"
        f"model: {{name: {name}, path: {name}}}\n"
        "knobs: {max_model_len: 8192}\nspace: {knobs: {max_num_seqs: [64, 256]}}\n",
    )
    asked = ["--config-dir", str(own), "+experiment=own", "platform=mi300x", f"engine.python={mi300x}"]
    assert cli.main([*asked, "plan=true"]) == cli.OK
    told = capsys.readouterr().out
    assert f"model: {name}, type of its weights not known\n" in told
    assert f"memory: not worked out for {name}: no config.json: '{name}' is no folder of this" in told
    assert "2: 2 run, 0 refused" in told
    assert "basis: assumed" in told


def test_plan_shows_what_is_really_served(
    mi300x: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path)
    asked = ["+experiment=serving_random", "platform=simulated", "plan=true", f"model.path={folder}"]
    assert cli.main(asked) == cli.OK
    assert f"model: meta-llama/Llama-3.1-8B, served from {folder}, bfloat16\n" in capsys.readouterr().out


def test_field_of_config_is_not_changed_under_name_that_stays() -> None:
    with pytest.raises(
        ConfigError,
        match=r"command line: model.config: is given text_config.num_hidden_layers=3, and model.name is "
        r"still google/gemma-3-27b-it, which has text_config.num_hidden_layers=62; expected a name",
    ):
        model_of("model=gemma_3_27b_it", "model.config.text_config.num_hidden_layers=3")
    with pytest.raises(
        ConfigError, match=r"is given num_local_experts=8, .* which has num_local_experts=null"
    ):
        model_of("model=qwen3_8b", "model.config.num_local_experts=8")


def test_config_given_with_name_is_its_own() -> None:
    fields = ", ".join(f"{key}: {value}" for key, value in LLAMA_8B.items() if key != "architectures")
    found = model_of("model=gpt_oss_20b", "model.name=a/b", "model.path=a/b", f"model.config={{{fields}}}")
    assert found.shape == model_of(RANDOM).shape
    assert (found.dtype, found.quantization) == ("bfloat16", None), "nothing of the former one's weights"
    with pytest.raises(
        ConfigError, match=r"model.config: num_hidden_layers is None; expected a whole number"
    ):
        model_of("model.path=a/b", "model.config.model_type=llama")


def test_name_of_known_model_is_not_lent_to_another(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"model.name: is Qwen/Qwen3-8B, and what is served is another model than "
        r"conf/model/qwen3_8b.yaml, which has that name; expected a name of its own.* Set model.name.",
    ):
        model_of(RANDOM, f"model.path={folder}", "model.name=Qwen/Qwen3-8B")
    own = conf_of(tmp_path, model__mine=f"name: Qwen/Qwen3-8B\npath: /nowhere\nshape: {SHAPE_OF_QWEN}\n")
    with pytest.raises(ConfigError, match=r"model.name: is Qwen/Qwen3-8B, and what is served is another"):
        model_of(RANDOM, "model=mine", folder=own)


def test_file_of_conf_is_no_path() -> None:
    with pytest.raises(
        ConfigError, match=r"model.path: is deepseek_r1, .* Choose the file by model=deepseek_r1"
    ):
        model_of(RANDOM, "model.path=deepseek_r1")


def test_dtype_beside_fields_is_of_weights_unless_they_say_how_weights_are_stored() -> None:
    assert model_of("model=qwen3_8b", "model.dtype=fp8").dtype == "fp8"
    with pytest.raises(ConfigError, match=r"model.dtype: is fp8, and model.config says .*mxfp4.* Leave"):
        model_of("model=gpt_oss_20b", "model.dtype=fp8")

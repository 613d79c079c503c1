"""No modelled number carries the name of a model whose build was not used, however the model is named.

Each file of conf/model is overridden by another one in every way that there is, through the real composition
and the real planner. Then every trial that is planned has, under a name that conf/model knows, the build that
its file says; or the words are refused.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper import config
from sweeper.errors import ConfigError
from sweeper.models import config_json
from sweeper.prepare import hub_config
from sweeper.prepare.node import read_node
from sweeper.prepare.planner import planner_of
from sweeper.prepare.platform import Choice
from sweeper.records import Model, Platform
from sweeper.records.architecture import Architecture
from tests.stubbed_node import hub_holds, stub

BASE = (
    *("workload=random", "workload.num_prompts=8", "knobs.tensor_parallel_size=1"),
    *("knobs.max_model_len=4096", "space.knobs.max_num_seqs=[4,8]", "engine.release=0.32.0"),
)
FILES = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((config.conf_folder() / "model").glob("*.yaml"))
}
PRESETS = [name for name, content in FILES.items() if "config" in content]
PAIRS = [(name, PRESETS[(place + 5) % len(PRESETS)]) for place, name in enumerate(PRESETS)]


def one_of_each_kind() -> list[tuple[str, str]]:
    """Return the first of all pairs whose bases are described alike: of one type, quantized in one way."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for base, other in PAIRS:
        fields = FILES[base]["config"]
        method = (fields.get("quantization_config") or {}).get("quant_method", "")
        found.setdefault((fields["model_type"], method), (base, other))
    return list(found.values())


KINDS = one_of_each_kind()


def build(preset: str) -> Architecture:
    """Read the fields of a file straight, without a configuration."""
    content = FILES[preset]
    found = config_json.describe(content["config"], where=preset, name="", path="").built
    assert found is not None
    return found


BUILDS = {FILES[preset]["name"]: build(preset) for preset in PRESETS}


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the words of a user may mean.

    Attributes:
        folder: Of the user's own configuration and models.
        python: An interpreter whose hub has ``held/by-hub``, whatever is written there.
    """

    folder: Path
    python: str

    def holds(self, preset: str) -> str:
        """Return a folder whose config.json is that of a preset, and let the hub have it too."""
        text = json.dumps(FILES[preset]["config"])
        own = self.folder / "models" / "own"
        own.mkdir(parents=True, exist_ok=True)
        (own / "config.json").write_text(text, encoding="utf-8")
        hub_config.look_up.cache_clear()
        hub_holds(self.python, **{"held--by-hub": text})
        return str(own)

    def experiment(self, **model: Any) -> None:
        """Write an experiment that says of the model what is given."""
        path = self.folder / "conf" / "experiment" / "own.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump({"study": {"experiment": "own", "question": "How?"}, "model": model})
        path.write_text(f"# @package _global_\n{text}", encoding="utf-8")


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    return Surroundings(folder=tmp_path, python=stub(tmp_path, monkeypatch))


def ways(base: str, other: str, around: Surroundings) -> dict[str, list[str]]:
    """Return ways to say another model over one that is there, each as the words of a command."""
    mine, theirs, folder = FILES[base]["name"], FILES[other]["name"], around.holds(other)
    fields = json.dumps(FILES[other]["config"]).replace('"', "")
    around.experiment(name=theirs, path=theirs)
    first = [f"model={base}"]
    series = "+space.series.one.model"
    return {
        "another file": [*first, f"model={other}"][1:],
        "its id as path": [*first, f"model.path={theirs}"],
        "its id as name": [*first, f"model.name={theirs}"],
        "a folder": [*first, f"model.path={folder}"],
        "a folder under the name": [*first, f"model.path={folder}", f"model.name={mine}"],
        "its id under the name": [*first, f"model.path={theirs}", f"model.name={mine}"],
        "an id of the hub": [*first, "model.path=held/by-hub"],
        "an id of the hub under the name": [*first, "model.path=held/by-hub", f"model.name={mine}"],
        "an unknown id under the name": [*first, "model.path=org/unknown", f"model.name={mine}"],
        "its name for a folder": [*first, f"model.path={folder}", f"model.name={theirs}"],
        "its fields under the name": [*first, f"model.config={fields}"],
        "one field under the name": [*first, "model.config.num_hidden_layers=3"],
        "its fields and both names": [*first, "model.name=a/b", "model.path=a/b", f"model.config={fields}"],
        "a shape under the name": [*first, "model.shape.layers=3"],
        "a later file": [*first, "+experiment=own"],
        "a later file and the name": [*first, "+experiment=own", f"model.name={mine}"],
        "a series": [*first, f"{series}={{name: {theirs}, path: {theirs}}}"],
        "a series under the name": [*first, f"{series}={{name: {mine}, path: {theirs}}}"],
        "a series of a folder": [*first, f"{series}={{name: {mine}, path: {folder}}}"],
    }


def planned(words: list[str], platform: Platform, around: Surroundings) -> Iterator[Model]:
    """Yield the models of all trials that these words plan."""
    python = [f"engine.python={around.python}"] if platform is Platform.MI300X else []
    own = around.folder / "conf"
    composed = config.compose_run([*BASE, *words, *python, f"platform={platform}"], config_dir=own)
    found = config.settings(composed, platform=platform)
    node = read_node(found, Choice(platform=platform, reason="asked for", node=None))
    yield from (job.spec.model for job in planner_of(found, node).grid())


def check(words: list[str], platform: Platform, around: Surroundings) -> str:
    """Plan, look at every name, and return what came of it."""
    try:
        models = list(planned(words, platform, around))
    except ConfigError as exc:
        assert "model" in str(exc), str(exc)
        return "refused"
    assert models
    for model in models:
        if model.built is None:
            assert platform is not Platform.SIMULATED, "nothing is modelled of what is not known"
        elif model.name in BUILDS:
            known = BUILDS[model.name]
            assert (model.built.layers, model.built.vocab) == (known.layers, known.vocab), model.name
    return "planned"


@pytest.mark.parametrize(("base", "other"), PAIRS, ids=[base for base, _ in PAIRS])
def test_name_goes_with_its_build(base: str, other: str, around: Surroundings) -> None:
    # Two ways for each pair, other ones for the next: together they are all ways, several times each.
    every = list(ways(base, other, around).items())
    start = 2 * PRESETS.index(base)
    for place, (_, words) in enumerate(itertools.islice(itertools.cycle(every), start, start + 2)):
        check(words, (Platform.MI300X, Platform.SIMULATED)[place % 2], around)


@pytest.mark.parametrize(("base", "other"), KINDS, ids=[base for base, _ in KINDS])
def test_name_goes_with_its_build_in_every_way(base: str, other: str, around: Surroundings) -> None:
    # Each way is gone on both platforms, by every other kind: all files on both take half an hour.
    platform = (Platform.MI300X, Platform.SIMULATED)[KINDS.index((base, other)) % 2]
    for words in ways(base, other, around).values():
        check(words, platform, around)


EXPECTED: Mapping[str, str] = {
    "another file": "planned",
    "its id as path": "planned",
    "its id as name": "planned",
    "a folder": "planned",
    "a folder under the name": "refused",
    "its id under the name": "refused",
    "an id of the hub": "planned",
    "an id of the hub under the name": "refused",
    "an unknown id under the name": "planned",
    "its name for a folder": "planned",
    "its fields under the name": "refused",
    "one field under the name": "refused",
    "its fields and both names": "planned",
    "a shape under the name": "refused",
    "a later file": "planned",
    "a later file and the name": "planned",
    "a series": "planned",
    "a series under the name": "refused",
    "a series of a folder": "refused",
}


def test_every_way_is_planned_or_refused_as_it_should_be(around: Surroundings) -> None:
    every = ways("llama_3_1_8b", "deepseek_r1", around)
    assert {name: check(words, Platform.MI300X, around) for name, words in every.items()} == EXPECTED

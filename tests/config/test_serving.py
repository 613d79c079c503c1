"""What can be said of an engine in the configuration, and how what cannot be said is answered."""

from __future__ import annotations

import pytest

from sweeper import config
from sweeper.config import Settings
from sweeper.errors import ConfigError
from sweeper.records import Platform

ATTACHED = ("engine=attach", "engine.url=http://127.0.0.1:8000/", "workload=random")


def read(*overrides: str) -> Settings:
    return config.settings(config.compose_run(["platform=cpu", *overrides]), platform=Platform.CPU)


def test_attached_endpoint_is_address_and_name_of_variable() -> None:
    engine = read(*ATTACHED, "engine.api_key_env=MY_KEY").engine
    assert (engine.kind, engine.url, engine.api_key_env) == ("attach", "http://127.0.0.1:8000", "MY_KEY")


def test_knobs_of_experiment_are_not_claimed_for_attached_endpoint() -> None:
    assert dict(read(*ATTACHED, "knobs.max_model_len=1024").space.base) == {}


def test_tgi_takes_program_and_words_before_it() -> None:
    engine = read("engine=tgi", "engine.prefix=[docker,run]", "engine.command=tgi").engine
    assert (engine.kind, engine.prefix, engine.command) == ("tgi", ("docker", "run"), "tgi")


def test_instances_are_realised_as_asked() -> None:
    found = read("knobs.instances=2", "engine.instances_by=split")
    assert found.engine.instances_by == "split"


MISTAKES = {
    "a space of server knobs": (
        [*ATTACHED, "space.knobs.max_num_seqs=8,16"],
        "engine.kind: is 'attach', and space.knobs.max_num_seqs would change a server",
    ),
    "an endpoint without an address": (["engine=attach"], "engine.url: is not given"),
    "an address with a password": (
        ["engine=attach", "engine.url='http://me:secret@host:1'"],
        "engine.url: is not the plain address of a server",
    ),
    "an address for an engine that we start": (
        ["engine.url=http://127.0.0.1:8000"],
        "engine.url: is given, and engine.kind is 'vllm'",
    ),
    "a variable for an engine that we start": (
        ["engine.api_key_env=MY_KEY"],
        "engine.api_key_env: is given, and engine.kind is 'vllm'",
    ),
    "a key in place of its variable": (
        [*ATTACHED, "engine.api_key_env='sk-abc'"],
        "engine.api_key_env: is not the name of an environment variable",
    ),
    "flags in the command": (
        ["engine=tgi", "engine.command='tgi --port 1'"],
        "engine.command: is 'tgi --port 1'; expected one program",
    ),
    "an unknown way to have instances": (
        ["engine.instances_by=splitt"],
        "engine.instances_by: 'splitt' is not allowed",
    ),
    "an unknown engine": (["engine.kind=tgii"], "Did you mean 'tgi'?"),
    "a real engine on a modelled node": (
        ["engine.kind=simulated"],
        "engine.kind: is 'simulated' on platform 'cpu'",
    ),
}


@pytest.mark.parametrize(("overrides", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_is_answered_in_one_sentence_without_secrets(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(*overrides)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "sk-abc" not in str(caught.value)

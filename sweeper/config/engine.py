"""What the configuration says of the engine, and how it bounds what may vary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from sweeper import knobs
from sweeper.config.checks import check_choice, check_positive
from sweeper.errors import ConfigError
from sweeper.kinds import DEFAULT_ENGINE, ENGINES, MODEL_OF_ENGINE, EngineKind
from sweeper.records import INSTANCES_BY, ContainerSpec, EngineSpec, Platform
from sweeper.text import confidential

LIVE = ("false", "auto", "true")
"""Values of ``engine.live``."""

_STAGES = ("free", "launch", "start", "ready", "sanity", "warmup", "load", "stop")
_TIME_LIMITS = tuple(f"{stage}_timeout_s" for stage in _STAGES)


def engine(given: Mapping[str, Any], platform: Platform) -> EngineSpec:
    """Make the engine of a study.

    Raises:
        ConfigError: A value is not allowed, or belongs to another kind of engine or platform.
    """
    check_choice("engine.kind", given["kind"], ("auto", *ENGINES))
    check_choice("engine.instances_by", given["instances_by"], INSTANCES_BY)
    for key in _TIME_LIMITS:
        check_positive(f"engine.{key}", given[key])
    for key in ("prefix", "container_arguments"):
        _refuse_secret(f"engine.{key}", given[key])
    kind = given["kind"]
    if kind == "auto":
        kind = MODEL_OF_ENGINE if platform is Platform.SIMULATED else DEFAULT_ENGINE
    declared = ENGINES[kind]
    if declared.is_modelled != (platform is Platform.SIMULATED):
        raise ConfigError(
            f"engine.kind: is '{kind}' on platform '{platform}'; the simulated engine and the simulated "
            "platform belong together, so that no simulated number stands among measured ones. "
            "Use engine.kind=auto."
        )
    return EngineSpec(
        kind=kind,
        release=_release(str(given["release"]), declared),
        python=None if declared.is_modelled else given["python"],
        url=None if declared.is_started_by_us else _url(given),
        api_key_env=None if declared.is_started_by_us else _variable(given["api_key_env"]),
        command=_program(given["command"]),
        prefix=tuple(given["prefix"]),
        container=None if declared.is_modelled or not declared.is_started_by_us else _container(given),
        instances_by=given["instances_by"],
        binds_numa=given["binds_numa"],
        **{key: given[key] for key in _TIME_LIMITS},
    )


def _refuse_secret(key: str, words: Sequence[object]) -> None:
    secret = confidential.assigned_secret(_words(key, words))
    if secret is not None:
        raise ConfigError(
            f"{key}: gives '{secret}' a value, which every user of the machine could read; expected "
            f"its name alone, as in --env {secret}. Export {secret} before the start."
        )


def _container(given: Mapping[str, Any]) -> ContainerSpec | None:
    """Make the container of the engine; where only a knob names images, it has none of its own yet."""
    said = (given["image"], given["container_runtime"], given["container_arguments"])
    if not any(said):
        return None
    if given["prefix"]:
        raise ConfigError(
            f"engine.image: is given together with engine.prefix={list(given['prefix'])}; expected one way "
            "into a container. Leave engine.prefix out, and put its words for the runtime into "
            "engine.container_arguments."
        )
    return ContainerSpec(
        image=_reference(given["image"]),
        runtime=given["container_runtime"],
        arguments=tuple(given["container_arguments"]),
        python=given["python"] or ContainerSpec.python,
    )


def _reference(image: str | None) -> str | None:
    if image is not None and (not image or image.startswith("-") or any(map(str.isspace, image))):
        raise ConfigError(
            f"engine.image: is '{image}'; expected one reference of an image, such as "
            "rocm/vllm:rocm7.0.0_vllm_0.11.2_20251210, or a file of Apptainer."
        )
    return image


def live(given: object) -> str:
    """Return whether settings may share an engine's start: one of ``LIVE``.

    Raises:
        ConfigError: It is something else.
    """
    text = str(given).lower() if isinstance(given, bool) else given
    check_choice("engine.live", text, LIVE)
    return str(text)


def _release(given: str, kind: EngineKind) -> str:
    if kind.lies_without_vllm:
        # It is found in the environment; what an experiment was written for is no release of vLLM.
        return given
    unplaced = knobs.why_unplaced(given)
    if unplaced is not None:
        known = knobs.releases()
        raise ConfigError(
            f"engine.release: '{given}' {unplaced}; expected a release of vLLM from {known[0]} to "
            f"{known[-1]}, or a later one. Name the one that the build comes nearest to."
        )
    return given


def _words(key: str, words: Sequence[object]) -> list[str]:
    """Return the words of a command; the schema lets lists and mappings pass for text."""
    for word in words:
        if not isinstance(word, str):
            raise ConfigError(
                f"{key}: one of its words is {word!r}; expected a text each, such as numactl. "
                "Write them as a plain list: [numactl, --localalloc]."
            )
    return [str(word) for word in words]


def refuse_variation(root: Mapping[str, Any]) -> None:
    """Check that nothing varies but the load: an endpoint that already runs keeps its settings.

    Raises:
        ConfigError: The space has knobs; the message names them.
    """
    series = [f"space.series.{name}.knobs" for name, item in root["space"]["series"].items() if item["knobs"]]
    varied = [*(f"space.knobs.{name}" for name in root["space"]["knobs"]), *series]
    if varied:
        raise ConfigError(
            f"engine.kind: is '{root['engine']['kind']}', and {', '.join(varied)} would change a server; "
            "expected load points only, since an endpoint that already runs keeps its own settings. Vary "
            "workload.*, or let the sweeper start the engine with engine.kind=vllm."
        )


def _url(given: Mapping[str, Any]) -> str:
    url = given["url"]
    if not url:
        raise ConfigError(
            "engine.url: is not given; expected the address of the endpoint that runs, such as "
            "http://127.0.0.1:8000. Set engine.url=ADDRESS."
        )
    found = urlsplit(url)
    is_plain = not (found.username or found.password or found.query or found.fragment)
    if found.scheme not in ("http", "https") or not found.hostname or not is_plain:
        # Not shown: what stands there may hold a password.
        raise ConfigError(
            "engine.url: is not the plain address of a server; expected one such as http://127.0.0.1:8000, "
            "without user, password or query. A key goes into a variable named by engine.api_key_env."
        )
    return f"{found.scheme}://{found.netloc}{found.path}".rstrip("/")


def _variable(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        # Not shown: it may be the key itself.
        raise ConfigError(
            "engine.api_key_env: is not the name of an environment variable; expected the name of the one "
            "that holds the endpoint's key, never the key itself."
        )
    return name


def _program(command: str) -> str:
    if not command or command.startswith("-") or any(letter.isspace() for letter in command):
        raise ConfigError(
            f"engine.command: is '{command}'; expected one program, such as text-generation-launcher. "
            "Words before it go into engine.prefix, its flags into knobs."
        )
    return command

"""SGLang's own environment: what its interpreter offers, its parser's flags, the variables of its server.

SGLang is never imported here: ``engine.python`` is asked, and answers in JSON.
"""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeper import knobs
from sweeper.engines.environment import (
    client_environment,
    device_mask,
    find_interpreter,
    installed,
    interpreter_of,
    machine_versions,
)
from sweeper.engines.vllm_caches import cache_folders
from sweeper.engines.vllm_environment import core_binding
from sweeper.errors import ConfigError
from sweeper.processes import masks
from sweeper.processes.process import Process
from sweeper.records import EngineSpec, Placement, Platform, TrialSpec

CORES = "SGLANG_CPU_OMP_THREADS_BIND"
"""Cores of each rank on the cpu platform, in the words of vLLM's variable: ``0,1|2,3``.

Source: sglang/srt/utils/numa_utils.py of 0.5.23."""

_DISTRIBUTIONS = ("sglang", "sglang-cpu", "amd-sglang")
_BESIDE = ("sgl-kernel", "sglang-kernel", "torch", "transformers")
# It imports torch: seconds, and minutes from a cold network disk.
_PARSER_TIMEOUT_S = 300.0

# The fields of a server's arguments, as its own parser takes them. Source: ServerArgs.add_cli_args, which
# every release from 0.4.10 to 0.5.23 has.
_PARSER = """
import argparse, json
from sglang.srt.server_args import ServerArgs
parser = argparse.ArgumentParser()
ServerArgs.add_cli_args(parser)
print("\\n" + json.dumps([
    {
        "dest": action.dest,
        "flags": action.option_strings,
        "action": type(action).__name__,
        "nargs": action.nargs,
        "type": getattr(action.type, "__name__", None),
        "choices": None if action.choices is None else sorted(map(str, action.choices)),
    }
    for action in parser._actions
]))
"""
_FORMS = {
    "_StoreAction": "value",
    "_StoreTrueAction": "switch",
    "BooleanOptionalAction": "pair",
    "LoRAPathAction": "list",
}
_TYPES = {
    "int": "int",
    "human_readable_int": "int",
    "float": "float",
    "loads": "json",
    "json_list_type": "json",
}
# Sizes whose first flag was the long one until 0.5.10, and is the field's name from then on.
_SIZES = ("tp_size", "pp_size", "dp_size", "ep_size")


@dataclass(frozen=True, kw_only=True)
class SglangEnvironment:
    """What an interpreter offers.

    Attributes:
        release: Version of SGLang without its local part, such as ``0.5.9``.
        versions: Of SGLang, torch, Python and the kernel, ROCm and driver below, as far as they are known.
    """

    release: str
    versions: Mapping[str, str]


@functools.cache
def probe(python: str) -> SglangEnvironment:
    """Look into the environment of an interpreter without importing SGLang; takes a fraction of a second.

    Raises:
        ConfigError: There is no such interpreter, it does not run, or SGLang is not installed there.
    """
    found = installed(python, (*_DISTRIBUTIONS, *_BESIDE), title="SGLang")
    release = next((found[name] for name in _DISTRIBUTIONS if name in found), None)
    if release is None:
        raise ConfigError(
            f"engine.python: {python} has no SGLang; expected the distribution 'sglang' in its environment. "
            "Install it there, or name another interpreter."
        )
    versions = {**machine_versions(), **found, "sglang": release}
    return SglangEnvironment(release=release.partition("+")[0], versions=versions)


def sglang_python(engine: EngineSpec) -> str:
    """Return the interpreter of SGLang's environment, as a trial names it.

    Raises:
        ConfigError: It names none.
    """
    return interpreter_of(engine, title="SGLang")


def flags_of(engine: EngineSpec | None) -> knobs.SglangFlags:
    """Return the flags of an engine: those of its own parser, or of the table where that cannot be asked.

    Args:
        engine: Which interpreter and release; None takes the newest release of the table.
    """
    if engine is None:
        return knobs.sglang_flags(knobs.sglang_releases()[-1])
    own = None if engine.python is None else _parsed(engine.python)
    return knobs.sglang_flags(engine.release) if own is None else own


@functools.cache
def _parsed(python: str) -> knobs.SglangFlags | None:
    """Ask an interpreter's SGLang for the flags of its parser; None where it cannot be imported here."""
    try:
        answer = subprocess.run(
            [find_interpreter(python), "-c", _PARSER],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PARSER_TIMEOUT_S,
            check=True,
        )
        return read_parser(json.loads(answer.stdout.rstrip().rpartition("\n")[2]))
    except (ConfigError, OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None


def read_parser(actions: list[dict[str, Any]]) -> knobs.SglangFlags:
    """Read what a parser of SGLang tells of its options; those that are deprecated are left out.

    Args:
        actions: ``dest``, ``flags``, ``action``, ``nargs``, ``type`` and ``choices`` of each, as argparse
            names them.
    """
    return knobs.by_knob(flag for action in actions if (flag := _flag(action)) is not None)


def _flag(action: Mapping[str, Any]) -> knobs.SglangFlag | None:
    form = _FORMS.get(str(action["action"]))
    names = [flag.removeprefix("--").replace("-", "_") for flag in action["flags"] if flag.startswith("--")]
    names = [name for name in names if not (form == "pair" and name.startswith("no_"))]
    if form is None or not names:
        return None
    dest = str(action["dest"])
    knob = next((name for name in names if name in _SIZES), dest if dest in names else names[0])
    return knobs.SglangFlag(
        knob=knob,
        form="list" if action["nargs"] in ("+", "*") else form,
        type="bool" if form in ("switch", "pair") else _TYPES.get(str(action["type"]), "text"),
        choices=tuple(action["choices"] or ()),
        reported=dest if dest not in names else "",
        aliases=tuple(sorted(name for name in names if name != knob)),
    )


def server_environment(
    spec: TrialSpec, placement: Placement, *, surroundings: Mapping[str, str], python: str, owner: Process
) -> dict[str, str]:
    """The environment of the server: our surroundings, the knobs, exactly one device mask, our marks.

    Args:
        spec: The trial.
        placement: Its devices.
        surroundings: Environment to start from, as a rule our own.
        python: Absolute path of the engine's interpreter.
        owner: Process that is to end it.

    Raises:
        PlacementError: On the CPU, fewer cores than ranks.
    """
    mask = _mask(spec, placement)
    chosen = knobs.environment(spec.assignment, release=spec.engine.release)
    return {
        **client_environment(spec, surroundings=surroundings, python=python, owner=owner, stub=None),
        **cache_folders(spec, placement, surroundings=surroundings, python=python),
        **{name: value for name, value in chosen.items() if not masks.is_mask(name)},
        # After the knobs: what follows is not for an assignment to change.
        **mask,
        **masks.expected(mask),
    }


def _mask(spec: TrialSpec, placement: Placement) -> dict[str, str]:
    """Return the one mask of devices, or of cores."""
    if spec.platform is not Platform.CPU:
        return device_mask(spec.platform, placement.devices)
    return {CORES: core_binding(placement.devices, ranks=knobs.devices(spec.assignment))}

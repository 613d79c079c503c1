"""How a release writes an assignment: its flags, its environment, and the command that starts a server.

A switch has had three forms, and some releases read the wrong one as its opposite or as the name of the
model; what cannot be said in a release is an error here, never a guess.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Literal

from sweeper.errors import KnobError
from sweeper.knobs.catalogue import knob_type
from sweeper.knobs.history import Run, run_at
from sweeper.knobs.names import HOST_SETTINGS, is_host_setting, is_of_sweeper, is_variable
from sweeper.knobs.release_order import is_between, release_key
from sweeper.records import INSTANCES, Assignment, Scalar

# Where a switch took a value instead of having a twin, first and last release.
# Source: vLLM's own action StoreBoolean in engine/arg_utils.py.
_VALUE_FORM: Mapping[str, tuple[str, str]] = {
    "enable_chunked_prefill": ("0.5.3", "0.8.4"),
    "multi_step_stream_outputs": ("0.6.3", "0.8.4"),
}

# Switches that are on when they are left out, from which release.
_ON_BY_DEFAULT: Mapping[str, str] = {"use_tqdm_on_load": "0.8.0", "disable_log_requests": "0.10.1"}


def command_line(assignment: Assignment, *, release: str) -> tuple[str, ...]:
    """Write the flags of an assignment in the form that this release reads as meant.

    Knobs that are variables, host settings or the sweeper's own are left out. A knob that the release does
    not have is written all the same: whether it should be is for ``check`` to say.

    Args:
        assignment: Knob to value.
        release: Release of vLLM that will read them.

    Returns:
        Words of a command line, sorted by knob, so that equal assignments give equal commands.

    Raises:
        KnobError: A value cannot be said in this release, such as False for a switch that is on by
            default and has no negative twin, or text for a switch, which some releases read as True.

    Source:
        README of data/, "How a switch is written".
    """
    words: list[str] = []
    for knob, value in sorted(assignment.items()):
        if not (is_variable(knob) or is_host_setting(knob) or is_of_sweeper(knob)):
            words.extend(_flag_words(knob, value, release=release))
    return tuple(words)


def _flag_words(knob: str, value: Scalar, *, release: str) -> list[str]:
    run = run_at(knob, release)
    spelling = run.spelling if run else "--" + knob.replace("_", "-")
    kind = run.kind if run else ""
    if isinstance(value, bool):
        return _switch_words(knob, value, spelling=spelling, run=run, release=release)
    if kind in ("switch", "boolean") or knob_type(knob) is bool:
        raise KnobError(
            f"knob '{knob}': the value is {value!r}; expected true or false. Write it without quotes: vLLM "
            "would take the word for the name of the model, or for true."
        )
    if kind == "list":
        return [spelling, *re.split(r"[\s,]+", str(value).strip("[] \t"))]
    text = _flag_text(value)
    # A word that begins with a dash would be read as the next flag.
    return [f"{spelling}={text}"] if text.startswith("-") or not text else [spelling, text]


def _switch_words(knob: str, value: bool, *, spelling: str, run: Run | None, release: str) -> list[str]:
    if knob in _VALUE_FORM and is_between(release, *_VALUE_FORM[knob]):
        # Never the bare switch nor two words: it takes the next word for its value.
        return [f"{spelling}={value}"]
    if value:
        return [spelling]
    if run and run.no_form_from and is_between(release, run.no_form_from, None):
        return ["--no-" + spelling.removeprefix("--")]
    is_on = knob in _ON_BY_DEFAULT and is_between(release, _ON_BY_DEFAULT[knob], None)
    if run is None or is_on:
        why = "it is on by default there" if run else "its default there is not known"
        raise KnobError(
            f"knob '{knob}': False cannot be said in vLLM {release}, which has no --no-"
            f"{spelling.removeprefix('--')}, and {why}. Leave the knob out."
        )
    return []


def _flag_text(value: Scalar) -> str:
    # swap_space=16.0 must be written 16 where the flag took whole numbers only.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def environment(assignment: Assignment, *, release: str) -> dict[str, str]:
    """Return the environment variables of an assignment as the process will see them.

    Args:
        assignment: Knob to value.
        release: Release of vLLM that will read them. All covered releases read them alike.

    Returns:
        Variable to text, sorted; True is ``1`` and False is ``0``.

    Raises:
        ConfigError: The text is not a release.
    """
    release_key(release)
    return {knob: _variable_text(value) for knob, value in sorted(assignment.items()) if is_variable(knob)}


def _variable_text(value: Scalar) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def launcher(release: str) -> Literal["module", "command"]:
    """Return how a server of this release is started.

    Args:
        release: Release of vLLM.

    Returns:
        ``command`` for ``vllm serve MODEL`` (from 0.5.2), ``module`` for
        ``python -m vllm.entrypoints.openai.api_server --model MODEL``.
    """
    return "command" if is_between(release, "0.5.2", None) else "module"


def serve_line(
    assignment: Assignment,
    *,
    release: str,
    model: str,
    served_name: str | None = None,
    revision: str | None = None,
    has_dummy_weights: bool = False,
    port: int | None = 8000,
    host: str | None = None,
) -> str:
    """Write what a person pastes into a shell to serve with this assignment.

    Args:
        assignment: Knob to value.
        release: Release of vLLM that will be started.
        model: Hub id or folder.
        served_name: Name under which it is served; None, or the hub id or folder itself, leaves it out.
        revision: Revision on the hub; None leaves it to the hub.
        has_dummy_weights: Whether its weights are random, so that there are none to load.
        port: Port to listen on; None leaves it to vLLM.
        host: Address to listen on; None leaves it to vLLM.

    Returns:
        The command with its environment in front, quoted for a POSIX shell; each setting of the host
        is a comment line before it.

    Raises:
        KnobError: As ``command_line``.
    """
    start = (
        ["vllm", "serve", model]
        if launcher(release) == "command"
        else ["python", "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    )
    about = [
        *(["--served-model-name", served_name] if served_name and served_name != model else []),
        *(["--revision", revision] if revision else []),
        *(["--load-format", "dummy"] if has_dummy_weights else []),
    ]
    listen = [*(["--host", host] if host else []), *(["--port", str(port)] if port is not None else [])]
    variables = [
        f"{name}={shlex.quote(text)}" for name, text in environment(assignment, release=release).items()
    ]
    words = [*start, *about, *listen, *command_line(assignment, release=release)]
    command = " ".join([*variables, shlex.join(words)])
    return "\n".join([*_host_comments(assignment), *_instance_comments(assignment), command])


def _host_comments(assignment: Assignment) -> list[str]:
    return [
        f"# needs: sysctl {HOST_SETTINGS.get(knob, knob)}={_variable_text(value)}"
        for knob, value in sorted(assignment.items())
        if is_host_setting(knob)
    ]


def _instance_comments(assignment: Assignment) -> list[str]:
    instances = assignment.get(INSTANCES, 1)
    if instances == 1:
        return []
    return [f"# {instances} instances behind one load, each on its own part of the devices; one of them:"]

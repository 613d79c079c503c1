"""Arguments of vLLM's load generator that the user gives (``client.arguments``), in a release's words.

What no release takes, or another key sets, was refused before (``config.client_arguments``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sweeper import knobs
from sweeper.errors import ConfigError, nearest
from sweeper.knobs import BenchFlag
from sweeper.records import GivenArgument, argument_flag

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text or a number",
    "json": "JSON, or a mapping",
}


def words(arguments: Iterable[GivenArgument], *, release: str) -> list[str]:
    """Write the user's arguments for the load generator of a release.

    Args:
        arguments: Pairs of a name, in underscores, and a value.
        release: Of the vLLM whose load generator it is.

    Returns:
        Words of its command line.

    Raises:
        ConfigError: The release has no such argument, or it takes another kind of value.
    """
    return [word for name, value in arguments for word in _words(name, value, release=release)]


def check(arguments: Iterable[GivenArgument], *, release: str) -> None:
    """Check that the load generator of a release takes the user's arguments.

    Raises:
        ConfigError: As ``words``.
    """
    words(arguments, release=release)


def _words(name: str, value: Any, *, release: str) -> list[str]:
    flag = knobs.bench_flag(argument_flag(name), release)
    if flag is None:
        raise ConfigError(
            f"client.arguments.{name}: is {_shown(value)}, and {knobs.bench_name(release)} of vLLM {release} "
            f"has no {argument_flag(name)} ({_when(name)}); expected one of its arguments. Take another vLLM "
            f"(client.python names one for the client alone), or leave it out.{_nearest(name, release)}"
        )
    if flag.takes in ("none", "bool"):
        return _switch(flag, value, release)
    if flag.takes == "list":
        # Words after it would be taken for further ones, if they did not begin with a flag.
        return [flag.name, *(value if isinstance(value, tuple) else (str(value),))]
    if not _is_of_type(flag.type, value):
        raise _wrong(flag, value, _EXPECTED[flag.type], release)
    # In one word: a value may begin with a dash.
    return [f"{flag.name}={value}"]


def _switch(flag: BenchFlag, value: Any, release: str) -> list[str]:
    if not isinstance(value, bool):
        raise _wrong(flag, value, "true or false", release)
    if value:
        return [flag.name]
    return [f"--no-{flag.name.removeprefix('--')}"] if flag.takes == "bool" else []


def _is_of_type(wanted: str, value: Any) -> bool:
    # true is a number to Python, but not to anybody else.
    if isinstance(value, bool | tuple):
        return False
    if wanted == "json":
        return isinstance(value, str) and _is_json(value)
    if wanted == "str":
        return True
    return isinstance(value, int) or (wanted == "float" and isinstance(value, float))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _wrong(flag: BenchFlag, value: Any, expected: str, release: str) -> ConfigError:
    name = flag.name.removeprefix("--").replace("-", "_")
    return ConfigError(
        f"client.arguments.{name}: is {_shown(value)}; expected {expected}, as {flag.name} of vLLM {release} "
        "takes it. Change it."
    )


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _when(name: str) -> str:
    span = knobs.bench_releases(argument_flag(name))
    if span is None:
        return "only the script of earlier releases has it"
    first, without = span
    return f"it came with {first}" if without is None else f"it is in {first} and later, before {without}"


def _nearest(name: str, release: str) -> str:
    known = (flag.removeprefix("--").replace("-", "_") for flag in knobs.bench_flags(release))
    return nearest(name, tuple(known))

"""The command that serves in a container image, from the one that was measured.

What the sweeper added for itself is taken out: names and labels by which it finds a container again, the
trial's folder, compiled code of its own caches, and variables that only its proofs need. What the engine was
given stays as it was: devices, processors, mounted weights, and the user's own words for the runtime.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import sweeper

_PROGRAM = "--entrypoint"
_OURS = frozenset({"--name", "--label", "--workdir", "--pwd", _PROGRAM})
_PLACES = frozenset({"--volume", "--bind"})
_FOLDERS = frozenset({"--workdir", "--pwd"})
_CACHES = "/mi300x-sweeper/"
# Of the variables that are passed by name, those that whoever serves needs, too: access to weights.
_KEPT = re.compile(r"^(HF|HUGGING_FACE)_(?!HUB_OFFLINE$)")
_HUB = "HF_HOME"
_ASSIGNED = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")


def in_image(line: str, *, ran: str, image: str) -> str:
    """Return a line that serves, put into the container of a command that was run.

    Args:
        line: Variables, program and arguments, as for this machine.
        ran: The whole command of a container's runtime.
        image: The reference in it.

    Returns:
        The line for a shell; `line` itself where the command names no such image.
    """
    words = shlex.split(ran)
    if not line or image not in words[2:]:
        return line
    place = words.index(image, 2)
    served = shlex.split(line)
    variables = [word for word in served if _ASSIGNED.match(word)]
    program, *arguments = served[len(variables) :]
    options = [*_kept(words[2:place]), *(word for each in variables for word in ("--env", each))]
    is_run = words[1] == "run"
    within = [_PROGRAM, program, image] if is_run else [image, program]
    return shlex.join([Path(words[0]).name, words[1], *options, *within, *arguments])


def inner(ran: str, *, image: str) -> str:
    """Return what a command of a container's runtime runs within its image; other commands as they are."""
    words = shlex.split(ran)
    if image not in words[2:]:
        return ran
    place = words.index(image, 2)
    options, arguments = words[:place], words[place + 1 :]
    programs = [after for word, after in itertools.pairwise(options) if word == _PROGRAM]
    return shlex.join([*programs[-1:], *arguments])


def _kept(options: Sequence[str]) -> Iterator[str]:
    folders = {after for word, after in itertools.pairwise(options) if word in _FOLDERS}
    places = [after.partition(":")[0] for word, after in itertools.pairwise(options) if word in _PLACES]
    hub = next((f"{_HUB}={place}" for place in places if place.endswith("/huggingface")), _HUB)
    words = iter(options)
    for word in words:
        if word in _OURS:
            next(words)
        elif word in _PLACES:
            place = next(words, "")
            if not _is_ours(place.partition(":")[0], folders):
                yield from (word, place)
        elif word == "--env":
            name = next(words, "")
            if "=" in name or _KEPT.search(name):
                yield from (word, hub if name == _HUB else name)
        else:
            yield word


def _is_ours(path: str, folders: set[str]) -> bool:
    return (
        path in folders or _CACHES in f"{path}/" or path == str(Path(sweeper.__file__).resolve().parents[1])
    )

"""Which tokenizer a client loads: the one that its server has, and that server's revision of it.

vLLM's benchmark has no flag for a revision. The server, which runs by then, has put the files of its revision
into the hub's cache on this machine, in a folder of their own; where they are found, the client is given that
folder. Where they are not (another cache, another hub), it is given the id, whose newest revision it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sweeper.records import TrialSpec


def tokenizer_of(spec: TrialSpec, *, environment: Mapping[str, str]) -> str:
    """Return the folder or hub id of the tokenizer that a trial's server has.

    Args:
        spec: The trial: the knobs ``tokenizer`` and ``tokenizer_revision`` go before its model's.
        environment: The client's, whose variables say where the hub's cache is.
    """
    own = spec.assignment.get("tokenizer")
    named = str(own) if own else spec.model.path
    # As vLLM has it: a tokenizer named by itself has its own revision, the model's has that of the model.
    revision = spec.assignment.get("tokenizer_revision", None if own else spec.model.revision)
    if not revision or Path(named).exists():
        return named
    folder = _snapshot(named, str(revision), environment)
    return named if folder is None else str(folder)


_HUB_CACHES = (
    ("HF_HUB_CACHE", ""),
    ("HUGGINGFACE_HUB_CACHE", ""),
    ("HF_HOME", "hub"),
    ("XDG_CACHE_HOME", "huggingface/hub"),
)
"""Variables that say where the hub's cache is, the first that is set before all others, and where below it.

Source: huggingface_hub 2.4, constants.py."""


def _snapshot(repository: str, revision: str, environment: Mapping[str, str]) -> Path | None:
    """Find a revision in the hub's cache.

    Source:
        huggingface_hub, "Understand caching": models--OWNER--NAME with refs/REVISION and snapshots/COMMIT.
    """
    cache = _hub_cache(environment)
    if cache is None:
        return None
    folder = cache / f"models--{repository.replace('/', '--')}"
    ref = folder / "refs" / revision
    try:
        commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    except OSError:
        return None
    snapshot = folder / "snapshots" / commit
    return snapshot if any(snapshot.glob("tokenizer*")) else None


def _hub_cache(environment: Mapping[str, str]) -> Path | None:
    for name, below in _HUB_CACHES:
        if environment.get(name):
            return Path(environment[name]) / below
    home = environment.get("HOME")
    return Path(home) / ".cache" / "huggingface" / "hub" if home else None

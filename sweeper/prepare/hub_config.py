"""The config.json of an id of the hub, asked of vLLM's interpreter: what it finds is what vLLM would load.

A short program in that interpreter looks into the cache of ``huggingface_hub``, and then at the hub. What is
set for the hub (HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN) holds, since it is the hub's own client.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

TIMEOUT_S = 30.0
"""The hub's client waits 10 s for an answer, and asks again; a plan should not wait longer than this."""

_MOST_LETTERS = 200
_PROGRAM = """
import json, sys
path, revision = sys.argv[1], sys.argv[2] or None
try:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
except ImportError:
    print(json.dumps({"why": "huggingface_hub is not installed there"}))
    sys.exit()
try:
    kept = try_to_load_from_cache(path, "config.json", revision=revision)
    file = kept if isinstance(kept, str) else hf_hub_download(path, "config.json", revision=revision)
    with open(file, encoding="utf-8") as stream:
        print(json.dumps({"config": json.load(stream)}))
except Exception as exc:
    from huggingface_hub import constants
    unreached = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
    known = {
        "LocalEntryNotFoundError": "it is in no cache, and " + unreached,
        "GatedRepoError": "the hub hands it out only to accounts that accepted its terms; set HF_TOKEN",
        "RepositoryNotFoundError": "the hub has no such model, or not for this account",
        "RevisionNotFoundError": "the model has no such revision",
        "EntryNotFoundError": "the model has no config.json",
        "HFValidationError": "it is no id of the hub",
    }
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    names = [kind.__name__ for kind in type(exc).__mro__ if kind.__name__ in known]
    why = known[names[0]] if names else type(exc).__name__ + ": " + (lines or ["no reason given"])[0]
    print(json.dumps({"why": why}))
"""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the interpreter answered.

    Attributes:
        config: The fields of the config.json; None where there is none.
        why: Why there is none, in words; empty where there is one.
    """

    config: Mapping[str, Any] | None = None
    why: str = ""


@cache
def look_up(path: str, *, revision: str | None, python: str, timeout_s: float = TIMEOUT_S) -> Found:
    """Ask an interpreter for the config.json of an id; whatever goes wrong is a reason, and no error.

    Args:
        path: The id on the hub.
        revision: Its revision; None is the newest one, or that in the cache.
        python: The interpreter of vLLM's environment.
        timeout_s: How long it may take.
    """
    command = [python, "-c", _PROGRAM, path, revision or ""]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
        )
        answer = json.loads(done.stdout.strip().rpartition("\n")[2])
    except subprocess.TimeoutExpired:
        return Found(why=f"{python} did not find it within {timeout_s:g} s")
    except OSError as exc:
        return Found(why=f"{python} cannot be started ({exc.strerror})")
    except ValueError:
        return Found(why=f"{python} ended without an answer (status {done.returncode})")
    config = answer.get("config") if isinstance(answer, dict) else None
    if isinstance(config, dict):
        return Found(config=config)
    why = str(answer.get("why", "no answer")) if isinstance(answer, dict) else "no answer"
    return Found(why=f"{python} does not find it ({why[:_MOST_LETTERS].rstrip('. ')})")

"""Is vLLM's API server, in a process that has imported it already (``processes.keeper``).

This file is run by path with the interpreter of the engine's environment, so it imports nothing of the
sweeper. What it does is what ``python -m vllm.entrypoints.openai.api_server`` does after its imports: the
module is executed as the main one, by Python's own ``runpy``, and what it starts (the engine core, workers)
are new interpreters that import for themselves.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import runpy
import sys
from pathlib import Path

_MODULE = "vllm.entrypoints.openai.api_server"


def load() -> None:
    """Import what the API server imports."""
    importlib.import_module(_MODULE)


def serve(_: None) -> None:
    """Be the API server; its arguments are those of this process."""
    gc.unfreeze()
    with contextlib.suppress(ImportError):
        # Whoever lists processes sees what this one is.
        importlib.import_module("setproctitle").setproctitle(
            " ".join(["python", "-m", _MODULE, *sys.argv[1:]])
        )
    # As -m has it.
    sys.path.insert(0, str(Path.cwd()))
    sys.modules.pop(_MODULE, None)
    runpy.run_module(_MODULE, run_name="__main__", alter_sys=True)

"""Parameter sweeps for LLM serving on AMD Instinct MI300X: compose, place, measure, answer.

From Python: ``sweeper.run("+experiment=case2_sched_steps")`` and ``sweeper.load_study(folder)`` (``api``).
"""

from typing import Any

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Find what users call when it is asked for: to import the package costs nothing."""
    if name not in ("run", "load_study"):
        raise AttributeError(f"module 'sweeper' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module("sweeper.api"), name)

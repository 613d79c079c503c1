"""Sweeps and their results from Python: ``sweeper.run`` and ``sweeper.load_study``.

What a study is stays in configuration, so that the same words do the same on a command line, in a notebook
and in a script, and a study that one began another goes on with.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.errors import ConfigError, NothingCompleteError

if TYPE_CHECKING:
    from analysis.study import Study

__all__ = ["load_study", "run"]


def run(*overrides: str, config_dir: Path | str | None = None, is_quiet: bool = False) -> Study:
    """Run a sweep to its end, as ``python -m sweeper`` does with the same words, and return its results.

    What is in the store already is not measured again. Charts and report are written as ever.

    Args:
        overrides: Such as ``"+experiment=case2_sched_steps"`` and ``"platform=simulated"``.
        config_dir: A folder with experiments of your own.
        is_quiet: Print nothing.

    Returns:
        The study. Trials that failed are among its rows, with ``state`` and ``failure_message``.

    Raises:
        ConfigError: A mistake in the words or in what they name; nothing was started.
        NothingCompleteError: No trial is complete.
        SweeperError: Results are at risk, or the machine does not answer.
    """
    from rich.console import Console

    from sweeper.cli import NOTHING_COMPLETE
    from sweeper.cli.sweep import composed, read_options, run_settings, settings_of

    asks = next((word for word in overrides if word.startswith("-") or word == "plan=true"), None)
    if asks is not None:
        raise ConfigError(
            f"sweeper.run: '{asks}' measures nothing; expected the words of a sweep. "
            "Ask it on the command line: python -m sweeper."
        )
    _, words = read_options(list(overrides), commands=())
    asked = composed(words, config_dir=None if config_dir is None else Path(config_dir))
    settings = settings_of(asked)
    console = Console(file=io.StringIO() if is_quiet else None, highlight=False, emoji=False)
    _load_analysis()
    if run_settings(asked, settings, console) == NOTHING_COMPLETE:
        raise NothingCompleteError(
            f"{settings.folder}: no trial is complete; expected one at least. Its report names each failure."
        )
    return load_study(settings.folder)


def load_study(place: Path | str, *, price_per_gpu_hour: float | None = None) -> Study:
    """Read the results of a study.

    Args:
        place: Its folder, such as ``outputs/case2_sched_steps-simulated``, or the URL of its results.
        price_per_gpu_hour: What a GPU costs by the hour; None takes what the study names, if it does.

    Returns:
        The study: ``frame`` is a pandas table with a row for each run of a load on the latest attempt of each
        trial (docs/columns.md), ``attempts`` has the earlier ones too.

    Raises:
        ConfigError: The folder is missing or holds no results.
        StoreError: A stored part cannot be read.
    """
    _load_analysis()
    from analysis.study import Study

    return Study.load(place, price_per_gpu_hour=price_per_gpu_hour)


def _load_analysis() -> None:
    from sweeper.cli.analysis import load_own_analysis

    load_own_analysis()

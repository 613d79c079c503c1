"""The questions of a study, with the lm-eval that was found to ask them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sweeper.kinds import ENGINES, LM_EVAL
from sweeper.records import Questions

if TYPE_CHECKING:
    from sweeper.config import Settings


def found_questions(settings: Settings) -> Questions | None:
    """Return what is asked, with interpreter and version of lm-eval; None where nothing is.

    Raises:
        ConfigError: It is not installed, or too old.
    """
    asked = settings.accuracy
    if asked is None or ENGINES[settings.engine.kind].is_modelled:
        return None
    from sweeper.clients import own_environment

    python = own_environment.find_python(LM_EVAL, asked.python)
    return replace(asked, python=python, version=own_environment.version_at(LM_EVAL, python))

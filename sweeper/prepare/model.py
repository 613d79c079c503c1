"""The model that is served, with a path that the engine can open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.config import Settings
from sweeper.models import tiny
from sweeper.records import Model, Platform

if TYPE_CHECKING:
    pass


def provide_model(settings: Settings) -> Model:
    """Return the model with a path the engine can open; the tiny one is made when it is first needed."""
    if settings.model.path != "tiny":
        return settings.model
    if settings.platform is Platform.SIMULATED:
        return replace(settings.model, revision=tiny.revision())
    made = tiny.describe(settings.outputs / "models" / "tiny-llama")
    return replace(made, path=str(Path(made.path).absolute()), name=settings.model.name)

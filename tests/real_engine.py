"""Trials of the real vLLM (CPU build) with a tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sweeper.engines import vllm_environment
from sweeper.models import tiny
from sweeper.records import TrialSpec
from tests.standin_server import make_spec


def make_real_spec(folder: Path, python: str, **changes: object) -> TrialSpec:
    """A trial of the vLLM that an interpreter has; `changes` as of `make_spec`, a tiny Llama unless told."""
    model = changes.pop("model", None) or tiny.describe(folder / "models")
    spec = make_spec(folder / "outputs", python, model=model, start_timeout_s=600.0, **changes)
    return replace(spec, engine=replace(spec.engine, release=vllm_environment.probe(python).release))

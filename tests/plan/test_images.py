"""Images as values of a space: each has its own release, and what one lacks is no fault of the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.errors import ConfigError, KnobError
from sweeper.plan.planner import Planner
from sweeper.records import ContainerSpec, EngineSpec, FailureClass, Model
from sweeper.space.domains import Choice
from sweeper.space.space import Series, Space
from tests.stand_ins import planner_of_three_series


def in_image(engine: EngineSpec, image: str, release: str) -> EngineSpec:
    container = ContainerSpec(image=image, runtime="docker", digest=f"sha256:of-{image}")
    return replace(engine, kind="vllm", release=release, python="python", container=container)


def planner_of(tmp_path: Path, model: Model, space: Space, **releases: str) -> Planner:
    made = planner_of_three_series(tmp_path, model)
    images = {image: in_image(made.engine, image, release) for image, release in releases.items()}
    return replace(made, space=space, engine=next(iter(images.values())), images=images)


def test_each_image_is_planned_with_its_own_release(tmp_path: Path, llama_70b: Model) -> None:
    space = Space(
        base={"max_model_len": 4096, "quantization": "fp8"}, domains={"image": Choice(values=("old", "new"))}
    )
    planner = planner_of(tmp_path, llama_70b, space, old="0.9.1", new="0.32.0")
    jobs = {str(job.spec.assignment["image"]): job for job in planner.grid()}
    assert {name: job.spec.engine.release for name, job in jobs.items()} == {"old": "0.9.1", "new": "0.32.0"}
    assert jobs["old"].spec.key != jobs["new"].spec.key
    assert jobs["new"].spec.label == "image=new"


def test_flag_that_one_image_lacks_refuses_that_image_alone(tmp_path: Path, llama_70b: Model) -> None:
    # async_scheduling came with 0.10.0.
    space = Space(
        base={"max_model_len": 4096, "quantization": "fp8", "async_scheduling": True},
        domains={"image": Choice(values=("old", "new"))},
    )
    planner = planner_of(tmp_path, llama_70b, space, old="0.9.1", new="0.32.0")
    refusals = {str(job.spec.assignment["image"]): job.refusal for job in planner.grid()}
    assert refusals["new"] is None
    assert refusals["old"] is not None and refusals["old"].failure is FailureClass.UNSUPPORTED
    assert "async_scheduling" in str(refusals["old"])
    # Where there is one image only, it is a mistake in the configuration.
    alone = replace(planner, images={"old": planner.images["old"]})
    with pytest.raises(KnobError, match=r"vLLM 0\.9\.1"):
        alone.grid()


def test_series_of_another_engine_names_an_image_of_its_own(tmp_path: Path, llama_70b: Model) -> None:
    series = (Series(name="tgi", label="TGI", knobs={}, engine="tgi"),)
    planner = planner_of(tmp_path, llama_70b, Space(series=series), old="0.9.1")
    with pytest.raises(ConfigError, match=r"Set space\.series\.tgi\.knobs\.image\."):
        planner.grid()

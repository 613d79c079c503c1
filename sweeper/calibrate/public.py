"""Public measurements besides the article's: other models, loads, releases and GPUs.

``FILES`` and ``amd_tables`` hold what was found: each source with its address, what is known of its setup,
and what had to be assumed where nothing is known. AMD's tables, which it publishes to validate its images,
are what the calibrations of those stacks are fitted to (``stacks``). All others are only compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from sweeper import config
from sweeper.calibrate import amd_tables
from sweeper.calibrate.figures import VALIDATION, Figure
from sweeper.knobs.aiter import MASTER
from sweeper.models import config_json
from sweeper.records import EngineSpec, LoadPoint, Model, Placement, Platform, TrialSpec
from sweeper.simulation.device import device_named

DATA = Path(__file__).parent / "data"
FILES = ("public_measurements.json", "dstack.json", "serving_reports.json")
"""Files of sources in ``DATA``, in the order in which reports show them."""


@cache
def sources() -> tuple[Mapping[str, Any], ...]:
    """Return every source, in the order in which reports show them."""
    others = (source for name in FILES for source in json.loads((DATA / name).read_text("utf-8")))
    return (*amd_tables.sources(), *others)


def figures_of(name: str) -> list[Figure]:
    """Return the figures of the source with this name in the data."""
    return source_figures(next(source for source in sources() if source["name"] == name))


def source_figures(source: Mapping[str, Any], *, role: str = VALIDATION) -> list[Figure]:
    """Return the figures of one source, each with the trial that reproduces its run.

    Args:
        source: As named in the data.
        role: Of all its figures.
    """
    return [
        Figure(
            experiment=source["name"],
            series=run["name"],
            metric=run["metric"],
            value=float(run["published"]),
            point=spec.load_points[0],
            spec=spec,
            placement=block_of(spec),
            role=role,
            until_s=source.get("counted_s"),
        )
        for run in source["runs"]
        for spec in [
            trial_of(
                model=source["model"],
                device=source["device"],
                release=source["release"],
                knobs={**source["knobs"], **run["knobs"], **({MASTER: 1} if source.get("aiter") else {})},
                load=load_of(run),
            )
        ]
    ]


def load_of(run: Mapping[str, Any]) -> LoadPoint:
    """Return what was sent in a run; a file of lengths stands beside those of the sources."""
    load = dict(run["load"])
    if "dataset_path" in load:
        load["dataset_path"] = str(DATA / load["dataset_path"])
    return LoadPoint(**{**load, "options": tuple(sorted(load.get("options", {}).items()))})


def trial_of(
    *,
    model: str | Mapping[str, Any],
    device: str,
    release: str,
    knobs: Mapping[str, Any],
    load: LoadPoint,
    mode: str | None = None,
) -> TrialSpec:
    """Make the trial of one run on the simulated platform, with the usual calibration of its engine.

    Args:
        model: Name of its file in ``conf/model``, or its ``name`` and the ``config`` of its config.json.
        device: One of ``simulation.device.DEVICES``.
        release: Of vLLM.
        knobs: With the tensor parallel size, and that of data parallelism where there are several engines.
        load: The one load point.
        mode: Partition mode; None is whole GPUs.
    """
    mode = mode or ("SPX" if device_named(device).has_partitions else None)
    return TrialSpec(
        study="public",
        folder="",
        series=(),
        assignment=dict(knobs),
        load_points=(load,),
        engine=EngineSpec(kind="simulated", release=release, python=None),
        model=_model(model) if isinstance(model, str) else _described(model),
        platform=Platform.SIMULATED,
        devices_wanted=int(knobs["tensor_parallel_size"]) * int(knobs.get("data_parallel_size", 1)),
        modelled_device=device,
        partitioning=mode,
    )


def block_of(spec: TrialSpec) -> Placement:
    """Return the devices that the trial holds: the first ones."""
    block = tuple(range(spec.devices_wanted))
    return Placement(node="modelled", devices=block, parents=block, partition_mode=spec.partitioning)


@cache
def _model(name: str) -> Model:
    overrides = ["+experiment=quick_start", "platform=simulated", f"model={name}"]
    found = config.settings(config.compose_run(overrides), platform=Platform.SIMULATED)
    return replace(found.model, revision=None)


def _described(model: Mapping[str, Any]) -> Model:
    return config_json.describe(model["config"], where=str(DATA), name=model["name"], path=model["name"])

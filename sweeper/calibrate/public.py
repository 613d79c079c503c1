"""Public measurements besides the article's: other models, loads, releases and GPUs.

``data/public_measurements.json`` holds what was found: each source with its address, what is known of its
setup, and what had to be assumed where nothing is known. Of one pair of tables, which AMD publishes to
validate its image of vLLM 0.10.0, the first is fitted (70B) and the second is validation (405B): they are
what the model knows of V1 and of the kernels that came after the article, AITER's apart, which that image
leaves off unless asked. All others are only compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from sweeper import config
from sweeper.calibrate.figures import FIT, VALIDATION, Figure
from sweeper.models import config_json
from sweeper.records import EngineSpec, LoadPoint, Model, Placement, Platform, TrialSpec
from sweeper.simulation.device import device_named

DATA = Path(__file__).parent / "data" / "public_measurements.json"

FITTED = "amd_70b_fp8"
"""The source whose numbers the calibration of V1 is fitted to."""

VALIDATED = "amd_405b_fp8"
"""The source that it is judged by: the same image and benchmarks, another model."""

PARAMETERS = (
    *("kernel_layer_s", "decode_head_s", "sample_s", "v1_host_frac"),
    *("fp8_gemm_frac", "kv_read_frac", "fp8_kv_frac"),
)
"""What is fitted to it: what changed with V1 and its kernels. All else stays as the article has it."""

ABOUT = (
    "vLLM 0.10.0 (V1) without AITER's kernels on 8 MI300X, after AMD's validation tables of its image of "
    "2025-08-12 (ROCm/vllm, docs/dev-docker); what they do not tell is as in article_0_6_2."
)


@cache
def sources() -> tuple[Mapping[str, Any], ...]:
    """Return every source, in the order in which reports show them."""
    found: list[dict[str, Any]] = json.loads(DATA.read_text(encoding="utf-8"))
    return tuple(found)


def table_figures() -> list[Figure]:
    """Return the figures of AMD's two validation tables, to fit and to judge by."""
    roles = {FITTED: FIT, VALIDATED: VALIDATION}
    return [
        figure
        for source in sources()
        if source["name"] in roles
        for figure in source_figures(source, role=roles[source["name"]])
    ]


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
        )
        for run in source["runs"]
        for spec in [
            trial_of(
                model=source["model"],
                device=source["device"],
                release=source["release"],
                knobs={**source["knobs"], **run["knobs"]},
                load=LoadPoint(**run["load"]),
            )
        ]
    ]


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
        knobs: With the tensor parallel size.
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
        devices_wanted=int(knobs["tensor_parallel_size"]),
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

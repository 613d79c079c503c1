"""The costs of a trial's steps: what its settings, its release and its device make of ``costs``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sweeper.records import Scalar, TrialSpec
from sweeper.simulation.attention import decodes_serially, reads_slowly
from sweeper.simulation.calibration import Calibration
from sweeper.simulation.communication import has_one_shot
from sweeper.simulation.costs import CostModel
from sweeper.simulation.device import Device
from sweeper.simulation.matrices import has_skinny
from sweeper.simulation.precision import precision_of
from sweeper.simulation.settings import SHORT_SUFFIXES, built_of, is_off, is_v1, sharing_of
from sweeper.simulation.stack import has_aiter

_MANY_CHANNELS = 112


def costs_of(
    spec: TrialSpec, settings: Mapping[str, Scalar], *, device: Device, devices: int, calibration: Calibration
) -> CostModel:
    """Return the costs of a trial's steps; equal ones are one object, which keeps what it works out.

    Args:
        spec: The trial.
        settings: What it sets, defaults filled in (``settings.resolve``).
        device: A GPU, or a partition of one.
        devices: Those that share a model.
        calibration: Efficiencies and overheads.
    """
    release, has_v1 = spec.engine.release, is_v1(spec)
    return _cost_model(
        device=device,
        devices=devices,
        gpus=max(1, round(devices * device.gpu_frac)),
        built=built_of(spec),
        calibration=calibration,
        precision=precision_of(settings, spec.model.quantization, has_rocm=device.has_rocm),
        kv_bits=8 if str(settings["kv_cache_dtype"]).startswith(SHORT_SUFFIXES) else 16,
        is_v1=has_v1,
        uses_graphs=not settings["enforce_eager"],
        capture_tokens=int(settings.get("max_seq_len_to_capture", 0)),
        has_prefix_cache=bool(settings["enable_prefix_caching"]),
        reads_slowly=reads_slowly(release, device, is_v1=has_v1, settings=settings),
        decodes_serially=decodes_serially(device, is_v1=has_v1, has_aiter=has_aiter(spec.assignment)),
        hides_host=has_v1 and bool(settings["async_scheduling"]),
        has_more_channels=int(settings.get("NCCL_MIN_NCHANNELS", 0)) >= _MANY_CHANNELS,
        has_numa_balancing=not is_off(settings["host_numa_balancing"]),
        has_one_shot=not settings["disable_custom_all_reduce"] and has_one_shot(release, device),
        has_skinny=not is_off(settings["VLLM_ROCM_USE_SKINNY_GEMM"]) and has_skinny(release, device),
        sharing=sharing_of(spec, settings),
    )


@lru_cache(maxsize=256)
def _cost_model(**stated: Any) -> CostModel:
    return CostModel(**stated)

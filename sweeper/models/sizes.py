"""Which ways of sharing a model out over a node are legal, and what each device then holds.

Asked are tensor, pipeline and data parallel sizes that are powers of two, of a node's devices at most; with
experts, each way also with whole experts instead of slices. Replicas of data parallelism have a KV cache and
an attention each and share out the experts together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sweeper import knobs
from sweeper.knobs import Accelerator
from sweeper.knobs.parallelism import why_shape_forbids
from sweeper.models.fit import Fit, fit
from sweeper.models.weights import built_of
from sweeper.records import Assignment, Model

_TENSOR, _PIPELINE, _DATA = "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"
_WHOLE_EXPERTS = "enable_expert_parallel"


@dataclass(frozen=True, kw_only=True)
class Size:
    """One way of sharing a model out.

    Attributes:
        knobs: The parallel knobs that say it, those of size 1 left out.
        devices: Devices that it takes.
        why_not: Why vLLM refuses it, in words; None where it is legal.
        fit: What each device holds; None where it is refused.
    """

    knobs: Assignment
    devices: int
    why_not: str | None
    fit: Fit | None

    @property
    def words(self) -> str:
        """The sizes as people write them: ``TP 4 x DP 2, EP``."""
        names = {_TENSOR: "TP", _PIPELINE: "PP", _DATA: "DP"}
        sizes = [f"{name} {self.knobs[knob]}" for knob, name in names.items() if knob in self.knobs]
        return " x ".join(sizes or ["TP 1"]) + (", EP" if _WHOLE_EXPERTS in self.knobs else "")

    @property
    def answer(self) -> str:
        """Why it is refused or does not fit, else nothing."""
        if self.fit is None:
            return self.why_not or ""
        if self.fit.is_feasible:
            return ""
        return f"needs {self.fit.needed_gib:.1f} GiB of {self.fit.available_gib:.1f}"


def sizes(
    model: Model,
    assignment: Assignment,
    *,
    release: str,
    device_memory_gib: float,
    devices: int,
    accelerator: Accelerator = "rocm",
) -> list[Size]:
    """Return every way, from the fewest devices to the most.

    Args:
        model: What is served.
        assignment: The other knobs; parallel sizes in it are held fixed.
        release: Release of vLLM.
        device_memory_gib: Memory of one device.
        devices: Devices of the node.
        accelerator: Whose defaults hold.

    Raises:
        PlacementError: The model's build is not known, or a knob is no whole number.
    """
    built = built_of(model)
    found = []
    for ways in _ways(assignment, devices=devices, has_experts=built.has_experts):
        asked = {**assignment, **ways}
        why_not = next(why_shape_forbids(asked, built), None)
        held = None
        if why_not is None:
            held = fit(
                model, asked, release=release, device_memory_gib=device_memory_gib, accelerator=accelerator
            )
        found.append(Size(knobs=ways, devices=knobs.devices(asked), why_not=why_not, fit=held))
    return sorted(found, key=lambda size: size.devices)


def _ways(assignment: Assignment, *, devices: int, has_experts: bool) -> Iterator[dict[str, int | bool]]:
    """Yield parallel knobs: tensor with pipeline or with data, and those with experts with whole ones too."""
    powers = [2**power for power in range(devices.bit_length()) if 2**power <= devices]
    sizes = {knob: [1] if knob in assignment else powers for knob in (_TENSOR, _PIPELINE, _DATA)}
    for tensor in sizes[_TENSOR]:
        for pipeline in sizes[_PIPELINE]:
            for data in sizes[_DATA]:
                if tensor * pipeline * data > devices or (pipeline > 1 and data > 1):
                    continue
                asked = {_TENSOR: tensor, _PIPELINE: pipeline, _DATA: data}
                plain: dict[str, int | bool] = {knob: size for knob, size in asked.items() if size > 1}
                yield plain
                if has_experts and tensor * data > 1 and _WHOLE_EXPERTS not in assignment:
                    yield {**plain, _WHOLE_EXPERTS: True}

"""Over how many devices a model is shared out, and which layers a stage of a pipeline holds."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sweeper.errors import PlacementError
from sweeper.records import Assignment
from sweeper.records.architecture import Architecture, Layer, runs_of


@dataclass(frozen=True, kw_only=True)
class Share:
    """Over how many devices matrices, layers and experts are shared out.

    Attributes:
        tensor: Devices that slice the matrices of a layer and its KV heads.
        pipeline: Stages that layers are shared out to.
        data: Replicas of the attention, each with a KV cache of its own; they share out the experts.
        has_whole_experts: Experts are shared out whole, by ``enable_expert_parallel``, and not sliced.
        redundant_experts: Copies of much used experts, of which each device keeps its part.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    has_whole_experts: bool = False
    redundant_experts: int = 0

    @property
    def expert_devices(self) -> int:
        """Devices that share out the experts of a layer."""
        return self.tensor * self.data

    @classmethod
    def of(cls, said: Assignment) -> Share:
        """Read it from an assignment.

        Raises:
            PlacementError: A size is no whole number of at least 1.
        """
        return cls(
            tensor=whole(said, "tensor_parallel_size", 1),
            pipeline=whole(said, "pipeline_parallel_size", 1),
            data=whole(said, "data_parallel_size", 1),
            has_whole_experts=bool(said.get("enable_expert_parallel", False)),
            redundant_experts=_redundant_experts(said) if said.get("enable_eplb", False) else 0,
        )


def _redundant_experts(said: Assignment) -> int:
    """Return the copies of experts that ``eplb_config`` asks for; 0 where it says none, or cannot be read."""
    try:
        asked = json.loads(str(said.get("eplb_config", "{}")))
    except ValueError:
        return 0
    count = asked.get("num_redundant_experts", 0) if isinstance(asked, dict) else 0
    return count if isinstance(count, int) and count > 0 else 0


def stage_sizes(built: Architecture, stages: int) -> list[int]:
    """Return how many layers each stage of a pipeline holds.

    Source:
        vLLM, distributed/utils.py, get_pp_indices: as many each; the rest goes to the stages before the last.
    """
    each, left = divmod(len(built.layers), stages)
    sizes = [each] * stages
    for place in range(2, left + 2):
        sizes[-place] += 1
    return sizes


def stages_of(built: Architecture, stages: int) -> list[tuple[tuple[Layer, int], ...]]:
    """Share the layers out to the stages of a pipeline, each as runs of equal layers."""
    if stages == 1:
        return [built.runs]
    sizes = stage_sizes(built, stages)
    starts = [sum(sizes[:place]) for place in range(stages)]
    return [
        tuple(runs_of(built.layers[start : start + size])) for start, size in zip(starts, sizes, strict=True)
    ]


def whole(said: Assignment, knob: str, otherwise: int) -> int:
    """Return a knob that is a whole number of at least 1.

    Raises:
        PlacementError: It is something else.
    """
    value = said.get(knob, otherwise)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PlacementError(f"knobs.{knob}: is {value!r}; expected a whole number of at least 1. Change it.")
    return value

"""A stack: the software and the device that a calibration is of, and how far another one is from it.

What is physics (peaks, shapes, links) is the same in all of them. What software makes of it changes from
release to release, from image to image, with the type of the weights and with AITER's kernels; so numbers
of one stack say the less about another the more of these differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import date
from functools import cache
from itertools import zip_longest
from typing import NamedTuple

from sweeper.knobs.aiter import MASTER
from sweeper.knobs.generations import is_set
from sweeper.records import Assignment, Model
from sweeper.simulation.device import USUAL_DEVICE, has_same_chip

_PLAIN = ("bfloat16", "float16", "half", "float32")
_NEAR_MINORS = 0.5
_GENERATION = 300.0
_DEVICE = 100.0
_UNUSUAL_DEVICE = 150.0
"""Of a stack of another device than the usual one: what it has otherwise is that device's own."""

_SAME_CHIP = 1.0
"""Only memory differs, and its peaks are exchanged; kernels are the same."""

_SEVERAL_BUILDS = 1.0
_YEAR = 0.04
"""What a year between images counts: it decides between those of one release, which are the same stack."""

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_DAY_IN_TAG = re.compile(r"(?<!\d)(20\d\d)-?([01]\d)-?([0-3]\d)(?!\d)")
_ONE_KERNEL: Mapping[str, str] = {"fbgemm_fp8": "fp8"}


class Difference(NamedTuple):
    """One thing in which two stacks differ.

    Attributes:
        words: For a reader.
        weight: How much it counts; a minor release is 1.
    """

    words: str
    weight: float


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The stack of a run.

    Attributes:
        release: Of vLLM.
        generation: ``v0`` or ``v1``, which follows from the release.
        device: One of ``DEVICES``; None is the usual one.
        weights: Type of the weights, as ``weights_of`` names it; None where it is not known.
        aiter: Whether AITER's kernels are on.
        date: Day of its container image, ``2025-07-15``; None where that does not tell.
    """

    release: str
    generation: str
    device: str | None = None
    weights: str | None = None
    aiter: bool = False
    date: str | None = None


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What a calibration is of.

    Attributes:
        release: Of vLLM.
        generation: Form of the scheduler, ``v0`` or ``v1``.
        device: One of ``DEVICES``.
        image: Image or build, as its maker calls it; empty where it is not told.
        date: Day of the image, ``2025-07-15``; empty where it is not told.
        aiter: Whether AITER's kernels were on; None where it is not told.
        weights: Types of the weights that were compared, as ``weights_of`` names them.
        kv: Types of the KV cache that were compared: ``auto``, ``fp8``.
        parent: Calibration from which all that was not fitted is taken; empty where there is none.
        has_several_builds: Whether it was fitted to several builds together: no run is of the very same.
    """

    release: str
    generation: str
    device: str = USUAL_DEVICE
    image: str = ""
    date: str = ""
    aiter: bool | None = None
    weights: tuple[str, ...] = ()
    kv: tuple[str, ...] = ()
    parent: str = ""
    has_several_builds: bool = False

    def __post_init__(self) -> None:
        for name in ("weights", "kv"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def differences(self, asked: Asked) -> Iterator[Difference]:
        """Yield in what a run's stack differs from this one, the weightiest first."""
        if asked.generation != self.generation:
            yield Difference(
                f"engine {self.generation.upper()} in place of {asked.generation.upper()}", _GENERATION
            )
        device = asked.device or USUAL_DEVICE
        if device != self.device:
            yield Difference(f"{self.device} in place of {device}", _between(self.device, device))
        minors = minors_between(self.release, asked.release)
        if self.release != asked.release:
            yield Difference(f"vLLM {self.release} in place of {asked.release}", minors)
        if asked.weights is not None and self.weights and asked.weights not in self.weights:
            yield Difference(
                f"weights in {' or '.join(self.weights)} in place of {asked.weights}", 1 + _NEAR_MINORS
            )
        if self.aiter is None or asked.aiter != self.aiter:
            had = {True: "on", False: "off", None: "not told"}[self.aiter]
            if asked.aiter or self.aiter:
                yield Difference(f"AITER {had} there, {'on' if asked.aiter else 'off'} here", 2.0)
        if self.has_several_builds:
            yield Difference("several builds in place of one", _SEVERAL_BUILDS)
        if asked.date and _DAY.fullmatch(self.date) and asked.date != self.date:
            days = abs((date.fromisoformat(asked.date) - date.fromisoformat(self.date)).days)
            yield Difference(f"image of {self.date} in place of {asked.date}", min(1.0, days / 365) * _YEAR)

    def distance(self, asked: Asked) -> float:
        """Return how far a run's stack is from this one; 0 is the same."""
        return sum(difference.weight for difference in self.differences(asked))

    def nearness(self, asked: Asked) -> str:
        """Say how near this stack is to that of a run, in words."""
        found = sorted(self.differences(asked), key=lambda each: -each.weight)
        if not found:
            return "the same stack"
        return "; ".join(each.words for each in found)


def _between(own: str, other: str) -> float:
    """Return how much it counts that a stack is of another device than a run."""
    if has_same_chip(own, other):
        return _SAME_CHIP
    return _DEVICE if own == USUAL_DEVICE else _UNUSUAL_DEVICE


def stack_of(content: Mapping[str, object]) -> Stack:
    """Read a stack as a calibration's file has it.

    Raises:
        TypeError: It has other fields than a stack.
    """
    known = {entry.name for entry in fields(Stack)}
    if not isinstance(content, dict) or not {"release", "generation"} <= set(content) <= known:
        raise TypeError(f"stack is {content!r:.60}")
    return Stack(**content)


def day_of(image: str) -> str | None:
    """Return the day in an image's reference, as AMD's tags have it; None where there is none.

    ``rocm/vllm:rocm6.3.1_vllm_0.8.5_20250521`` is of ``2025-05-21``.
    """
    for found in _DAY_IN_TAG.finditer(image):
        day = "-".join(found.groups())
        try:
            date.fromisoformat(day)
        except ValueError:
            continue
        return day
    return None


def weights_of(model: Model) -> str:
    """Name the type of a model's weights: kernels differ by it, and by how FP8 ones are scaled."""
    stored = model.quantization
    if stored is not None:
        return stored.method
    if model.scaled_by is not None:
        return model.scaled_by
    return "bfloat16" if model.dtype in _PLAIN else str(model.dtype)


def kernels_of(weights: str, *, has_rocm: bool) -> str:
    """Name the type of weights whose kernels multiply these.

    On NVIDIA's GPUs one kernel (CUTLASS) takes scales of rows and of a whole matrix, ROCm's the latter alone.

    Source:
        vLLM 0.6.3, layers/quantization/utils/w8a8_utils.py, apply_fp8_linear: without CUTLASS scales of rows
        are multiplied in after torch._scaled_mm, in 32 bits.
    """
    return weights if has_rocm else _ONE_KERNEL.get(weights, weights)


def has_aiter(assignment: Assignment) -> bool:
    """Return whether the knobs switch AITER's kernels on."""
    return is_set(assignment.get(MASTER, 0))


@cache
def minors_between(release: str, other: str) -> float:
    """Return how many minor releases lie between two: 1 from 0.9 to 0.10, and a tenth for each patch."""
    weights = (100.0, 1.0, 0.1)
    mine, theirs = _numbers(release), _numbers(other)
    pairs = zip_longest(mine[:3], theirs[:3], fillvalue=0)
    return abs(sum(weight * (a - b) for weight, (a, b) in zip(weights, pairs, strict=False)))


def _numbers(release: str) -> list[int]:
    found = []
    for part in release.split("."):
        digits = "".join(c for c in part if c.isdigit()) if part[:1].isdigit() else ""
        if not digits:
            break
        found.append(int(digits))
    return found

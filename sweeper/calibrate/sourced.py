"""Stacks that no maker publishes tables of, each fitted to one public source and judged by another.

A type of weights has kernels of its own, and in one release these can be slower than all others by an order
of magnitude. So such a stack starts from the nearest known one, and moves what the source shows to be
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date

from sweeper.calibrate import public
from sweeper.calibrate.anchoring import of_stack, stack_for
from sweeper.calibrate.figures import predict
from sweeper.calibrate.fitting import alike, fit
from sweeper.simulation import calibration
from sweeper.simulation.calibration import NamedCalibration

_ROUNDS = 25
_RIDGE = 0.05


@dataclass(frozen=True, kw_only=True)
class Sourced:
    """A stack and the sources that tell of it.

    Attributes:
        name: Of its calibration.
        image: As its maker calls it.
        date: Of the measurements.
        parent: Calibration that the fit starts from.
        fitted_to: Source whose numbers the parameters are fitted to.
        judged_by: Source whose numbers are predicted.
        starts: What moves, and from where: the parent's value where none is given here.
        words: What is slow or fast there, for a reader.
    """

    name: str
    image: str
    date: str
    parent: str
    fitted_to: str
    judged_by: str
    starts: Mapping[str, float | None]
    words: str


STACKS = (
    Sourced(
        name="dstack_0_6_3_fbgemm",
        image="ghcr.io/embeddedllm/vllm-rocm:cb3b2b9",
        date="2024-11",
        parent="article_0_6_2",
        fitted_to="dstack_405b_meta_8",
        judged_by="dstack_405b_meta_8_online",
        starts={
            # As fast as memory is, weights would be read in no time beside what is seen, and say nothing.
            "weight_read_frac": 0.1,
            # Of long products the parent tells more: the same image served the same checkpoint there.
            **dict.fromkeys(("kv_read_frac", "prefill_attention_frac")),
        },
        words="scales of rows are no part of ROCm's FP8 multiplication there, and a step of a few tokens "
        "takes as long as reading the weights at a tenth of the memory's rate",
    ),
)


def fitted_names() -> frozenset[str]:
    """Return the sources that a stack was fitted to: what is said of them is no prediction."""
    return frozenset(each.fitted_to for each in STACKS)


def made(*, date_made: date, tell: Callable[[str], object] = lambda _: None) -> Iterator[NamedCalibration]:
    """Make the calibration of every stack that a source tells.

    Args:
        date_made: Day of the fit.
        tell: Called with a line for each stack.
    """
    for each in STACKS:
        yield _made(each, date_made=date_made)
        tell(f"{each.name}: from {each.fitted_to}")


def _made(each: Sourced, *, date_made: date) -> NamedCalibration:
    parent = calibration.load(each.parent)
    figures, judged = public.figures_of(each.fitted_to), public.figures_of(each.judged_by)
    values = fit(
        figures,
        {**asdict(parent.calibration), **{name: start for name, start in each.starts.items() if start}},
        parameters=tuple(each.starts),
        rounds=_ROUNDS,
        ridge=_RIDGE,
        weigh=alike,
    )
    stack = stack_for(figures, parent=parent, image=each.image, date=each.date)
    return of_stack(
        figures,
        values,
        judged=(judged, predict(judged, values)),
        fitted=dict.fromkeys(each.starts, each.fitted_to),
        parent=parent,
        name=each.name,
        about=f"vLLM {stack.release} ({stack.generation.upper()}) on MI300X with weights in "
        f"{' or '.join(stack.weights)}, after {each.fitted_to}: {each.words}; runs not fitted: "
        f"{each.judged_by}.",
        stack=stack,
        made=date_made,
    )

"""Answers shorter than asked for: how many, why, and what to do.

Shorter answers are less work, so that a run of them is no measurement of the load that was asked for. Where
every answer was to have its full length (``workload.ignore_eos``), such a run is refused; elsewhere it
counts, and its row says how many ended early. The reason is worked out from what was asked, from the lengths
of the single requests and from the longest sequence that the engine reports.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.errors import MeasurementError
from sweeper.kinds import ENGINES
from sweeper.records import FailureClass, LoadPoint, Scalar, TrialSpec
from sweeper.records.plurals import amount

_ENDING = ("stop", "stop_token_ids", "max_completion_tokens", "truncate_prompt_tokens", "ignore_eos")
"""Keys of a request's body by which it can end early. Source: vLLM's API, protocol.py of 0.32.0."""


@dataclass(frozen=True, kw_only=True)
class RequestLengths:
    """Tokens of each request of a run, as the client counted them.

    Attributes:
        inputs: Of its prompt.
        outputs: Of its answer.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Short:
    """The answers of a run that ended before the length that was asked for.

    Attributes:
        count: How many.
        because: In a sentence, with what to do.
    """

    count: int
    because: str


def lengths_of(report: Mapping[str, Any]) -> RequestLengths | None:
    """Read the lengths of single requests from the benchmark's JSON; None where it does not have them."""
    inputs, outputs = report.get("input_lens"), report.get("output_lens")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        return None
    return RequestLengths(inputs=tuple(map(int, inputs)), outputs=tuple(map(int, outputs)))


def find(
    lengths: RequestLengths | None, spec: TrialSpec, point: LoadPoint, *, effective: Mapping[str, Scalar]
) -> Short | None:
    """Find the answers that are shorter than asked.

    Args:
        lengths: Of the single requests; None where they are not known.
        spec: The trial.
        point: What was asked.
        effective: What the engine reports of itself.

    Returns:
        They, with the reason, and 0 of them where all are whole; None where their lengths are not known, or
        none was asked for that holds for all.
    """
    wanted = _wanted_each(point)
    if lengths is None or wanted is None:
        return None
    short = [pair for pair in zip(lengths.inputs, lengths.outputs, strict=True) if pair[1] < wanted]
    if not short:
        return Short(count=0, because="")
    outputs = [answer for _, answer in short]
    span = f"{outputs[0]}" if len(set(outputs)) == 1 else f"{min(outputs)} to {max(outputs)}"
    why = _why(short, spec, point, effective=effective, answers=len(lengths.outputs))
    return Short(
        count=len(short),
        because=f"{len(short)} of {len(lengths.outputs)} answers have {span} tokens where {wanted} were "
        f"asked for: {why}",
    )


def check(
    told: float | None,
    spec: TrialSpec,
    point: LoadPoint,
    *,
    short: Short | None = None,
    log_path: str | None,
) -> None:
    """Check that answers that were to run to their full length did: shorter ones are less work.

    Args:
        told: Output tokens of all answers as the client counted them; None where it did not.
        spec: The trial.
        point: What was asked.
        short: Those that are shorter, where that is known.
        log_path: The client's log.

    Raises:
        MeasurementError: There are more or fewer tokens than were asked for; the message says why.
    """
    wanted = _wanted_in_all(spec, point)
    if wanted is not None and told is not None and told != wanted:
        why = "Look whether the model's length (max_model_len) or the engine cut them short."
        raise MeasurementError(
            f"client: the answers have {amount(told, 'token', 'g')} together; expected {wanted}, "
            f"{point.output_len} for "
            f"each of {amount(point.num_prompts, 'request')}, since they ignore the end of a text. "
            f"{short.because if short is not None and short.count else why}",
            failure=FailureClass.CLIENT,
            log_path=log_path,
        )


def _wanted_each(point: LoadPoint) -> int | None:
    return None if point.range_ratio else point.output_len


def _wanted_in_all(spec: TrialSpec, point: LoadPoint) -> int | None:
    """Return how many tokens all answers have together; None where they may end as they like.

    TGI does not know ``ignore_eos``, so that its answers may end early whatever is asked.
    """
    each, heeds = _wanted_each(point), ENGINES[spec.engine.kind].heeds_ignore_eos
    return point.num_prompts * each if point.ignore_eos and heeds and each is not None else None


def _why(
    short: Sequence[tuple[int, int]],
    spec: TrialSpec,
    point: LoadPoint,
    *,
    effective: Mapping[str, Scalar],
    answers: int,
) -> str:
    """Return the first reason that explains all of them, and what to do."""
    return (
        _by_body(point)
        or _by_model_length(short, effective)
        or _by_cap(short, answers=answers)
        or _by_end_of_text(spec, point)
        or "nothing that was asked for ends them. Look into the engine's log."
    )


def _by_body(point: LoadPoint) -> str | None:
    body = json.loads(point.form.extra_body or "{}")
    ending = [name for name in _ENDING if name in body]
    if not ending:
        return None
    names = " and ".join(f"workload.extra_body.{name}" for name in ending)
    return f"{names} may end them. Leave it out where all are to have their full length."


def _by_model_length(short: Sequence[tuple[int, int]], effective: Mapping[str, Scalar]) -> str | None:
    longest = effective.get("max_model_len")
    # A prompt may be counted without the token that begins it.
    if not isinstance(longest, int) or any(sum(pair) < longest - 1 for pair in short):
        return None
    return (
        f"with their prompts they fill the longest sequence of {amount(longest, 'token')}. Raise "
        "knobs.max_model_len, or shorten workload.input_len or output_len."
    )


def _by_cap(short: Sequence[tuple[int, int]], *, answers: int) -> str | None:
    """Explain answers that are all cut at one length.

    Source: OpenAIServingCompletion, vllm/entrypoints/openai of 0.32.0: ``max_new_tokens`` of a generation
    config that is given limits every answer of the server; in earlier releases that of the model's own did.
    """
    if answers < 2 or len(short) < answers or len({answer for _, answer in short}) > 1:
        return None
    return (
        "all end at one length, as max_new_tokens of a generation config ends them: of the knobs "
        "generation_config and override_generation_config, or of the model's own. Raise it, or leave these "
        "knobs out and set knobs.generation_config=vllm, which reads none."
    )


def _by_end_of_text(spec: TrialSpec, point: LoadPoint) -> str | None:
    if not point.ignore_eos:
        ends = "turn" if point.form.endpoint == "chat" else "text"
        return (
            f"workload.ignore_eos is false, and the model ended them itself (by its token for the end of a "
            f"{ends}). Set workload.ignore_eos=true for answers of equal length; leave it for answers as "
            "users get them, whose lengths then differ between settings."
        )
    if not ENGINES[spec.engine.kind].is_started_by_us or not ENGINES[spec.engine.kind].heeds_ignore_eos:
        return (
            "the server may not know ignore_eos, which is vLLM's own. Set workload.ignore_eos=false, and "
            "compare it by tokens rather than by requests."
        )
    return None

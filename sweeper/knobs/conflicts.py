"""Which knobs cannot be combined, each rule a function that names the knob and says why.

Some rules are facts about releases (what V1 forced on, what 0.6.2 refused): a build between two releases may
differ. The others are logic, and hold for every build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sweeper.knobs.engine_defaults import defaults
from sweeper.knobs.generations import Accelerator, engine_generation, is_set, only_in_v0
from sweeper.knobs.history import run_at
from sweeper.knobs.parallelism import why_not_on_one_node
from sweeper.knobs.refusals import Refusal
from sweeper.knobs.release_order import is_between, is_clean
from sweeper.records import Assignment
from sweeper.records.plurals import amount

_Rule = Callable[..., tuple[str, str] | None]


def find_conflicts(
    assignment: Assignment, *, release: str, accelerator: Accelerator, build: str | None = None
) -> Iterator[Refusal]:
    """Find knobs that may each be set alone but not together.

    Args:
        assignment: Knob to value.
        release: Release of vLLM.
        accelerator: What it runs on.
        build: Version of a build that is taken for that release without being stated to be it, or None.

    Returns:
        Refusals; those that rest on what releases are known to do are marked as facts, and where the build is
        none of these releases, say how to try it all the same.
    """
    is_other = build is not None or not is_clean(release)
    facts: tuple[_Rule, ...] = (
        _steps_and_chunks,
        _steps_and_speculation,
        _chunks_forced,
        _generation_refused,
    )
    logic: tuple[_Rule, ...] = (_fewer_tokens_than_sequences, _fewer_tokens_than_length, _not_on_one_node)
    for rule in (*facts, *logic):
        found = rule(assignment, release=release, accelerator=accelerator)
        if found:
            knob, reason = found
            is_fact = is_other and rule in facts
            hint = (
                f" {build or release} is no release: engine.allow_unknown=true tries it." if is_fact else ""
            )
            yield Refusal(
                knob=knob, value=assignment[knob], kind="conflict", reason=reason + hint, is_fact=is_fact
            )


def _plans_several_steps(assignment: Assignment, release: str) -> bool:
    return (
        assignment.get("num_scheduler_steps", 1) != 1 and run_at("num_scheduler_steps", release) is not None
    )


def _steps_and_chunks(
    assignment: Assignment, *, release: str, accelerator: Accelerator
) -> tuple[str, str] | None:
    if not _plans_several_steps(assignment, release) or assignment.get("enable_chunked_prefill") is not True:
        return None
    if is_between(release, None, "0.6.2"):
        return (
            "num_scheduler_steps",
            f"vLLM 0.5.5 to 0.6.2 refuse several scheduler steps together with chunked prefill, and this is "
            f"{release}. Set enable_chunked_prefill to false.",
        )
    if assignment.get("pipeline_parallel_size", 1) != 1:
        return (
            "num_scheduler_steps",
            f"vLLM {release} refuses several scheduler steps with chunked prefill and pipeline stages. Set "
            "enable_chunked_prefill to false, or pipeline_parallel_size to 1.",
        )
    return None


def _steps_and_speculation(
    assignment: Assignment, *, release: str, accelerator: Accelerator
) -> tuple[str, str] | None:
    if _plans_several_steps(assignment, release) and {"speculative_model", "speculative_config"} & set(
        assignment
    ):
        reason = f"vLLM {release} refuses several scheduler steps with speculation. Leave one of them out."
        return "num_scheduler_steps", reason
    return None


def _chunks_forced(
    assignment: Assignment, *, release: str, accelerator: Accelerator
) -> tuple[str, str] | None:
    generation = engine_generation(release, accelerator=accelerator, assignment=assignment)
    if (
        assignment.get("enable_chunked_prefill") is False
        and generation == "v1"
        and is_between(release, None, "0.11.0")
    ):
        return (
            "enable_chunked_prefill",
            f"V1 forces chunked prefill on through vLLM 0.11.0, and this is {release}: the series would not "
            "be what its name says. Use 0.11.1 or later, or a release whose engine is V0.",
        )
    return None


def _generation_refused(
    assignment: Assignment, *, release: str, accelerator: Accelerator
) -> tuple[str, str] | None:
    if "VLLM_USE_V1" not in assignment:
        return None
    wants_v1 = is_set(assignment["VLLM_USE_V1"])
    if not wants_v1 and is_between(release, "0.11.0", "0.11.0"):
        return "VLLM_USE_V1", "the V0 engine is gone in vLLM 0.11.0, so 0 cannot work. Leave it out."
    unsupported = [*only_in_v0(assignment, release=release, accelerator=accelerator)]
    if wants_v1 and unsupported and is_between(release, "0.8.0", "0.10.2"):
        return (
            "VLLM_USE_V1",
            f"vLLM {release} does not start V1 with {', '.join(unsupported)} and fails when V1 is asked for "
            "(NotImplementedError). Leave VLLM_USE_V1 out to fall back to V0.",
        )
    return None


def _fewer_tokens_than_sequences(
    assignment: Assignment, *, release: str, accelerator: Accelerator
) -> tuple[str, str] | None:
    tokens, seqs = assignment.get("max_num_batched_tokens"), assignment.get("max_num_seqs")
    if isinstance(tokens, int) and isinstance(seqs, int) and tokens < seqs:
        return (
            "max_num_batched_tokens",
            f"vLLM {release} refuses fewer tokens in a step than max_num_seqs = "
            f"{amount(seqs, 'sequence')}. Raise the one, or lower the other.",
        )
    return None


def _fewer_tokens_than_length(
    assignment: Assignment, *, release: str, accelerator: Accelerator
) -> tuple[str, str] | None:
    tokens, length = assignment.get("max_num_batched_tokens"), assignment.get("max_model_len")
    default = defaults(release, accelerator=accelerator, assignment=assignment)["enable_chunked_prefill"]
    is_chunked = assignment.get("enable_chunked_prefill", default)
    if not is_chunked and isinstance(tokens, int) and isinstance(length, int) and tokens < length:
        return (
            "max_num_batched_tokens",
            f"without chunked prefill vLLM {release} refuses fewer tokens in a step than max_model_len = "
            f"{length}, since no long prompt would fit. Raise the one, or lower the other.",
        )
    return None


def _not_on_one_node(
    assignment: Assignment, *, release: str, accelerator: Accelerator
) -> tuple[str, str] | None:
    return why_not_on_one_node(assignment, release=release)

"""What server and client have to be given alike, so that they read the same prompts.

The client loads the model's tokenizer by itself, to make prompts of a length and to count tokens. A tokenizer
that is code of the model's own folder, another tokenizer than the model's, or another mode of it has to reach
both; so do the variables that say where models are looked up. Locust sends token ids and has no tokenizer,
and vLLM's offline benchmarks hold engine and client in one process.
"""

from __future__ import annotations

from collections.abc import Iterator

from sweeper.kinds import CLIENTS
from sweeper.knobs.bench import bench_flag
from sweeper.knobs.forms import environment
from sweeper.knobs.generations import is_set
from sweeper.knobs.refusals import Refusal
from sweeper.records import Assignment

# Where models are found and with whose leave. TRUST_REMOTE_CODE is TGI's and has a flag of the client.
_SHARED_VARIABLES = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "MODELSCOPE_", "VLLM_USE_MODELSCOPE")


def client_arguments(
    assignment: Assignment, *, release: str, tokenizer: str, trusts: bool = False
) -> tuple[str, ...]:
    """Write the flags of vLLM's benchmark that repeat what the server was given about its tokenizer.

    Args:
        assignment: Knob to value, of vLLM or of TGI.
        release: Release of the vLLM whose benchmark it is.
        tokenizer: Folder or hub id of the tokenizer.
        trusts: Whether the client runs code of the model's folder even if no knob says so; a server that was
            started elsewhere has none.
    """
    trusts = trusts or is_set(assignment.get("trust_remote_code", assignment.get("TRUST_REMOTE_CODE", False)))
    mode = assignment.get("tokenizer_mode")
    has_mode = mode is not None and bench_flag("--tokenizer-mode", release) is not None
    return (
        *("--tokenizer", tokenizer),
        *(("--tokenizer-mode", str(mode)) if has_mode else ()),
        *(("--trust-remote-code",) if trusts else ()),
    )


def client_variables(assignment: Assignment, *, release: str) -> dict[str, str]:
    """Return the variables of an assignment that the client needs, too."""
    found = environment(assignment, release=release)
    return {name: text for name, text in found.items() if name.startswith(_SHARED_VARIABLES)}


def refuse_unshared(assignment: Assignment, *, release: str, client: str) -> Iterator[Refusal]:
    """Refuse what the client of a release cannot be given.

    Args:
        assignment: Knob to value.
        release: Release of the vLLM whose benchmark it is.
        client: One of ``kinds.CLIENTS``.
    """
    mode = assignment.get("tokenizer_mode", "auto")
    if CLIENTS[client].reads_tokenizer and mode != "auto" and bench_flag("--tokenizer-mode", release) is None:
        yield Refusal(
            knob="tokenizer_mode",
            value=mode,
            kind="bad_value",
            reason=f"the benchmark of vLLM {release} reads a tokenizer in no other mode than 'auto' (it has "
            "--tokenizer-mode from 0.6.5). Leave it out, or set client.python to a later vLLM's.",
            is_mistake=True,
        )
    if not CLIENTS[client].has_engine_inside and is_set(assignment.get("skip_tokenizer_init", False)):
        yield Refusal(
            knob="skip_tokenizer_init",
            value=True,
            kind="bad_value",
            reason="a server without a tokenizer answers no text, by which it is proven. Leave it out.",
            is_mistake=True,
        )

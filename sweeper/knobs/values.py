"""Does this release take the value?

It must be listed where the release lists values, be of the right type, lie in its range, and have words in
the form of the release. Whether the engine keeps it once it runs is not known here.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping

from sweeper.errors import KnobError
from sweeper.knobs.catalogue import declared_knobs, knob_type
from sweeper.knobs.forms import command_line
from sweeper.knobs.generations import Accelerator
from sweeper.knobs.history import Run, flags, listed_values
from sweeper.knobs.names import is_variable
from sweeper.knobs.refusals import Refusal
from sweeper.knobs.release_order import covered, is_between, release_after, release_key
from sweeper.records import Scalar

# From these releases a value that is not in data/vllm_values.csv may still be right.
_OPEN_LIST_FROM: Mapping[str, str] = {
    "quantization": "0.4.2",
    "load_format": "0.10.1",
    "distributed_executor_backend": "0.10.2",
    "block_size": "0.18.0",
    "kv_cache_dtype": "0.33.0",
}


def refuse_unlisted(knob: str, value: Scalar, *, release: str, accelerator: Accelerator) -> Refusal | None:
    """Refuse a value that is not among those this release lists for the knob."""
    listed = listed_values().get(knob)
    if listed is None or isinstance(value, bool):
        return None
    text, known = str(value), [v for v, runs in listed.items() if any(run.holds(release) for run in runs)]
    if text in listed:
        run = next((run for run in listed[text] if run.holds(release)), None)
        if run and accelerator not in run.not_on:
            return None
        why = (
            f"vLLM {release} does not run it on {accelerator}" if run else _unlisted_in(listed[text], release)
        )
    elif knob in _OPEN_LIST_FROM and is_between(release, _OPEN_LIST_FROM[knob], None):
        close = difflib.get_close_matches(text, known, n=1, cutoff=0.85)
        if not close:
            return None
        # The parser would take it, and the engine would fail minutes later.
        why = f"vLLM {release} has no such value; '{close[0]}' is close"
    else:
        why = f"vLLM {release} has no such value"
    usable = sorted(v for v in known if accelerator not in listed[v][-1].not_on)
    return Refusal(
        knob=knob,
        value=value,
        kind="bad_value",
        reason=f"{why}; expected one of {', '.join(usable)}. Choose one of them.",
    )


def _unlisted_in(runs: tuple[Run, ...], release: str) -> str:
    past = [run.last for run in runs if run.last and covered(release) > release_key(run.last)]
    if past:
        gone_in = release_after(max(past, key=release_key))
        return f"the value was removed in vLLM {gone_in}, and this is {release}"
    return f"the value came with vLLM {runs[0].first}, and this is {release}"


def refuse_form(knob: str, value: Scalar, *, release: str) -> Refusal | None:
    """Refuse a value of the wrong type, out of its range, or that the release has no words for."""
    wanted = knob_type(knob)
    problem = None
    if not is_variable(knob) and wanted is not None and not _has_type(knob, value, wanted):
        names: Mapping[type, str] = {
            bool: "true or false",
            int: "a whole number",
            float: "a number",
            str: "text",
        }
        problem = f"it is of type {type(value).__name__}; expected {names[wanted]}. {_advice(value, wanted)}"
    if problem is None:
        problem = _out_of_range(knob, value) or _bad_json(knob, value)
    if problem is None:
        try:
            command_line({knob: value}, release=release)
        except KnobError as error:
            problem = str(error).removeprefix(f"knob '{knob}': ")
    return Refusal(knob=knob, value=value, kind="bad_value", reason=problem) if problem else None


def _advice(value: Scalar, wanted: type) -> str:
    """Return how to mend a value of the wrong type: quotes are to blame only where it reads right without."""
    if wanted is str:
        return "Write it in quotes."
    plain = value.strip().lower() if isinstance(value, str) else ""
    if wanted is bool:
        is_quoted = plain in ("true", "false")
    else:
        form = r"[+-]?\d+" if wanted is int else r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?"
        is_quoted = re.fullmatch(form, plain) is not None
    return "Write it without quotes." if is_quoted else "Correct it."


def refuse_dated(knob: str, value: Scalar, *, release: str) -> Refusal | None:
    """Refuse a value of a form that came later or is gone, which a build of another state may well take."""
    problem = None
    if knob == "swap_space" and is_between(release, None, "0.5.4"):
        is_fraction = isinstance(value, float) and not value.is_integer()
        problem = f"vLLM {release} takes whole GiB only (fractions came with 0.5.5). Round it."
        problem = problem if is_fraction else None
    elif knob == "compilation_config":
        problem = _dated_compilation(value, release=release)
    return Refusal(knob=knob, value=value, kind="bad_value", reason=problem) if problem else None


def _has_type(knob: str, value: Scalar, wanted: type) -> bool:
    if isinstance(value, bool):
        return wanted is bool
    if wanted is float:
        return isinstance(value, int | float) and math.isfinite(value)
    if wanted is str and isinstance(value, int):
        kinds = {run.kind for run in flags().get(knob, ())}
        return bool(kinds & {"list", "json"})
    return isinstance(value, wanted)


def _out_of_range(knob: str, value: Scalar) -> str | None:
    declared = declared_knobs().get(knob)
    if declared is None or isinstance(value, bool | str):
        return None
    low, high = declared.minimum, declared.maximum
    is_open_below = declared.name == "gpu_memory_utilization"
    too_low = low is not None and (value <= low if is_open_below else value < low)
    too_high = high is not None and value > high
    if not too_low and not too_high:
        return None
    bounds = [f"more than {low:g}" if is_open_below else f"at least {low:g}"] if low is not None else []
    bounds += [f"at most {high:g}"] if high is not None else []
    return f"it is out of range; expected {' and '.join(bounds)}. Move it into the range."


def _bad_json(knob: str, value: Scalar) -> str | None:
    if "json" not in {run.kind for run in flags().get(knob, ())}:
        return None
    try:
        content = json.loads(str(value))
    except json.JSONDecodeError as error:
        return f"it is not JSON ({error}). Write an object such as '{{\"key\": 1}}'."
    is_one = knob != "compilation_config" or isinstance(content, dict | int)
    return None if is_one else "expected an object."


def _dated_compilation(value: Scalar, *, release: str) -> str | None:
    try:
        content = json.loads(str(value))
    except json.JSONDecodeError:
        return None
    if isinstance(content, dict):
        return _bad_compilation_key(content, release=release)
    if not isinstance(content, int) or is_between(release, None, "0.8.5.post1"):
        return None
    return f"a bare level is taken through 0.8.5.post1, and this is {release}. Write an object."


def _bad_compilation_key(content: Mapping[str, object], *, release: str) -> str | None:
    keys: tuple[tuple[str, str | None, str | None, str], ...] = (
        ("level", None, "0.17.1", "mode (0.11.1+)"),
        ("mode", "0.11.1", None, "level (0.6.5 to 0.17.1)"),
        ("use_cudagraph", None, "0.11.0", "cudagraph_mode (0.10.1+)"),
        ("full_cuda_graph", None, "0.11.0", "cudagraph_mode (0.10.1+)"),
        ("cudagraph_mode", "0.10.1", None, "use_cudagraph (to 0.11.0)"),
    )
    for key, first, last, instead in keys:
        if key in content and not is_between(release, first, last):
            when = f"came with vLLM {first}" if first else f"was last taken by vLLM {last}"
            return f"its key '{key}' {when}, and this is {release}. Use {instead}."
    return None

"""Whether a model can be asked at the chat endpoint."""

from __future__ import annotations

from sweeper import knobs
from sweeper.errors import ConfigError
from sweeper.models.chat_template import lacks_chat_template
from sweeper.records import TrialSpec

# Before, a model without a template was given a usual one. Source: transformers 4.44, release notes; vLLM
# 0.6.0 asks for a later one.
_NO_USUAL_TEMPLATE = "0.6.0"


def check_chat(spec: TrialSpec) -> None:
    """Check that the server of a trial can answer at the chat endpoint, where a load point asks there.

    Raises:
        ConfigError: The model's folder holds no chat template, and the server is given none.
    """
    asks = any(point.form.endpoint == "chat" for point in spec.load_points)
    if not asks or spec.assignment.get("chat_template") is not None:
        return
    tokenizer = str(spec.assignment.get("tokenizer") or spec.model.path)
    if knobs.release_key(spec.engine.release) < knobs.release_key(_NO_USUAL_TEMPLATE):
        return
    if lacks_chat_template(tokenizer):
        raise ConfigError(
            f"workload.endpoint: is chat, and {tokenizer} has no chat template, without which vLLM refuses "
            "each request; expected chat_template.jinja there. Set knobs.chat_template to the file of one, "
            "or set workload.endpoint=completions."
        )

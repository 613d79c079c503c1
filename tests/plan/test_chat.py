"""A model without a chat template is not asked at the chat endpoint: it would refuse every request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.errors import ConfigError
from sweeper.models import tiny
from sweeper.plan.chat import check_chat
from sweeper.records import LoadPoint, RequestForm, TrialSpec


@pytest.fixture
def asked(simulated_spec: TrialSpec, tmp_path: Path) -> TrialSpec:
    """A trial at the chat endpoint, of a tiny model, which has no template."""
    chat = LoadPoint(
        dataset="random", num_prompts=8, input_len=9, output_len=9, form=RequestForm(endpoint="chat")
    )
    engine = replace(simulated_spec.engine, release="0.32.0")
    return replace(
        simulated_spec, model=tiny.describe(tiny.make(tmp_path)), engine=engine, load_points=(chat,)
    )


def test_model_without_template_is_refused_with_what_to_set(asked: TrialSpec) -> None:
    with pytest.raises(ConfigError, match=r"workload\.endpoint: is chat.*Set knobs\.chat_template"):
        check_chat(asked)


def test_template_of_its_own_or_given_will_do(asked: TrialSpec) -> None:
    check_chat(replace(asked, assignment={"chat_template": "/path/to/one.jinja"}))
    (Path(asked.model.path) / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    check_chat(asked)


def test_what_is_not_here_or_not_asked_is_not_judged(asked: TrialSpec) -> None:
    check_chat(replace(asked, model=replace(asked.model, path="org/name")))
    check_chat(replace(asked, engine=replace(asked.engine, release="0.5.4")))
    completions = replace(asked.load_points[0], form=RequestForm())
    check_chat(replace(asked, load_points=(completions,)))

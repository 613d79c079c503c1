"""Answers shorter than asked for: how many, the reason, and what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.clients import short_answers
from sweeper.clients.bench_report import check_complete
from sweeper.clients.short_answers import RequestLengths
from sweeper.errors import MeasurementError
from sweeper.records import LoadPoint, RequestForm, TrialSpec
from tests.standin_server import make_spec

ASKED = LoadPoint(dataset="random", num_prompts=4, input_len=100, output_len=128, ignore_eos=True)
ENDING = replace(ASKED, ignore_eos=False)


@pytest.fixture
def spec(tmp_path: Path) -> TrialSpec:
    return make_spec(tmp_path, tmp_path / "python")


def because(
    spec: TrialSpec, point: LoadPoint, outputs: tuple[int, ...], *, inputs: int = 100, **effective: Any
) -> str:
    lengths = RequestLengths(inputs=(inputs,) * len(outputs), outputs=outputs)
    found = short_answers.find(lengths, spec, point, effective=effective)
    assert found is not None
    assert found.count == sum(tokens < 128 for tokens in outputs)
    return found.because


def test_count_and_lengths_are_told(spec: TrialSpec) -> None:
    said = because(spec, ENDING, (128, 7, 90, 128))
    assert said.startswith("2 of 4 answers have 7 to 90 tokens where 128 were asked for: ")
    assert because(spec, ENDING, (128, 7, 128, 128)).startswith("1 of 4 answers have 7 tokens where")


def test_whole_answers_need_no_reason(spec: TrialSpec) -> None:
    assert because(spec, ENDING, (128, 128)) == ""


def test_model_that_ends_its_text_is_named(spec: TrialSpec) -> None:
    said = because(spec, ENDING, (128, 7, 90, 128))
    assert (
        "workload.ignore_eos is false, and the model ended them itself (by its token for the end of a t"
        in said
    )
    chat = replace(ENDING, form=RequestForm(endpoint="chat"))
    assert "by its token for the end of a turn" in because(spec, chat, (128, 7, 90, 128))


@pytest.mark.parametrize("body", ['{"stop": ["."]}', '{"stop_token_ids": [1]}', '{"ignore_eos": false}'])
def test_body_that_ends_answers_is_named_first(spec: TrialSpec, body: str) -> None:
    point = replace(ASKED, form=RequestForm(extra_body=body))
    name = body.split('"')[1]
    assert f"workload.extra_body.{name} may end them. Leave it out" in because(spec, point, (7, 90, 128, 128))


def test_full_model_length_is_named(spec: TrialSpec) -> None:
    # 200 - 100 = 100 tokens are left to each answer; a prompt may be counted without its first token.
    said = because(spec, ASKED, (100, 101, 100, 128), max_model_len=200)
    assert (
        "with their prompts they fill the longest sequence of 200 tokens. Raise knobs.max_model_len" in said
    )
    assert "longest sequence" not in because(spec, ASKED, (100, 50, 100, 128), max_model_len=200)


def test_one_length_for_all_is_a_cap_of_the_server(spec: TrialSpec) -> None:
    said = because(spec, ASKED, (64, 64, 64, 64))
    assert "as max_new_tokens of a generation config ends them: of the knobs generation_config and" in said
    assert "set knobs.generation_config=vllm, which reads none" in said
    # Some of one length, or a single answer, may be chance.
    assert "max_new_tokens" not in because(spec, ASKED, (64, 64, 128, 128))
    assert "max_new_tokens" not in because(spec, ASKED, (64,))


def test_server_that_may_not_know_the_request_is_named(spec: TrialSpec) -> None:
    attached = replace(spec, engine=replace(spec.engine, kind="attach"))
    assert "the server may not know ignore_eos" in because(attached, ASKED, (7, 90, 128, 128))
    assert "nothing that was asked for ends them" in because(spec, ASKED, (7, 90, 128, 128))


def test_nothing_is_said_where_no_one_length_was_asked_for(spec: TrialSpec) -> None:
    lengths = RequestLengths(inputs=(9, 9), outputs=(1, 2))
    for point in (replace(ASKED, output_len=None), replace(ASKED, range_ratio=0.5)):
        assert short_answers.find(lengths, spec, point, effective={}) is None
    assert short_answers.find(None, spec, ASKED, effective={}) is None


def test_refusal_says_why_where_lengths_are_known(spec: TrialSpec) -> None:
    lengths = RequestLengths(inputs=(100,) * 4, outputs=(64,) * 4)
    short = short_answers.find(lengths, spec, ASKED, effective={})
    with pytest.raises(
        MeasurementError, match=r"256 tokens together; expected 512, .* 4 of 4 answers have 64"
    ):
        short_answers.check(256.0, spec, ASKED, short=short, log_path=None)
    with pytest.raises(MeasurementError, match=r"Look whether the model's length \(max_model_len\)"):
        short_answers.check(256.0, spec, ASKED, log_path=None)


def test_lengths_are_read_from_the_report() -> None:
    report = {"input_lens": [9, 8], "output_lens": [1, 2]}
    assert short_answers.lengths_of(report) == RequestLengths(inputs=(9, 8), outputs=(1, 2))
    assert short_answers.lengths_of({"output_lens": [1]}) is None
    assert short_answers.lengths_of({"input_lens": [9], "output_lens": [1, 2]}) is None


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        (
            ["", "Bad Request"],
            r"The first error: Bad Request: so a server answers a prompt for which its max",
        ),
        (
            ["Traceback\n  File\nConnectionResetError: peer"],
            r"The first error: ConnectionResetError: peer\. See",
        ),
        ([""], r"See the client's log for the first error"),
        (None, r"See the client's log for the first error"),
    ],
)
def test_failed_requests_are_told_with_their_first_error(errors: list[str] | None, said: str) -> None:
    report = {"completed": 1, "failed": 1, "num_prompts": 2, "errors": errors}
    with pytest.raises(MeasurementError, match=rf"1 of 2 requests completed, 1 failed; .*{said}"):
        check_complete(report, wanted=2, log_path=None)

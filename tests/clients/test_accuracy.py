"""Questions before the loads: what lm-eval is told, how its report is read, and what a file may hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.clients import accuracy
from sweeper.config import questions
from sweeper.errors import ConfigError, MeasurementError
from sweeper.records import Questions, TrialSpec
from tests.standin_server import make_spec

LINE = '{"question": "2+3=", "answer": "5"}\n'
DEFAULTS = {"path": None, "task": None, "limit": None, "max_tokens": 16, "timeout_s": 60.0, "python": None}


@pytest.fixture
def asked(tmp_path: Path) -> Questions:
    path = tmp_path / "sums.jsonl"
    path.write_text(LINE * 4, encoding="utf-8")
    found = questions.of({**DEFAULTS, "path": str(path)})
    assert found is not None
    return replace(found, python="/env/bin/python", version="0.4.9")


@pytest.fixture
def spec(tmp_path: Path, asked: Questions) -> TrialSpec:
    return replace(make_spec(tmp_path / "outputs", "python"), accuracy=asked)


def report(**results: Any) -> dict[str, Any]:
    name = "sweeper_questions"
    return {"results": {name: results}, "n-samples": {name: {"original": 100, "effective": 100}}}


def test_lm_eval_asks_the_running_server_and_is_told_no_key(spec: TrialSpec, tmp_path: Path) -> None:
    words = accuracy.command(spec, "http://127.0.0.1:4321", tmp_path, tokenizer=None)
    assert words[:5] == ["/env/bin/python", "-m", "lm_eval", "--model", "local-completions"]
    assert words[words.index("--tasks") + 1] == "sweeper_questions"
    assert words[words.index("--include_path") + 1] == str(tmp_path)
    told = words[words.index("--model_args") + 1].split(",")
    assert "base_url=http://127.0.0.1:4321/v1/completions" in told and "tokenizer_backend=none" in told
    assert "--limit" not in words


def test_task_of_lm_eval_is_asked_by_its_name(spec: TrialSpec, tmp_path: Path) -> None:
    of_task = replace(spec, accuracy=Questions(task="gsm8k", limit=50, python="python"))
    words = accuracy.command(of_task, "http://x", tmp_path, tokenizer="t")
    assert words[words.index("--tasks") + 1] == "gsm8k" and words[words.index("--limit") + 1] == "50"
    assert "--include_path" not in words


def test_file_is_asked_offline_greedily_and_as_it_stands(asked: Questions, tmp_path: Path) -> None:
    task = accuracy.task(asked)
    assert task["dataset_kwargs"] == {"data_files": {"test": asked.path}}
    assert task["doc_to_text"] == "{{question}}" and task["generation_kwargs"]["temperature"] == 0.0
    assert accuracy.variables(asked, tmp_path)["HF_DATASETS_OFFLINE"] == "1"
    assert accuracy.variables(Questions(task="gsm8k"), tmp_path) == {}


def test_answers_are_read_in_the_order_of_the_questions_by_the_reading_that_counts() -> None:
    samples = [
        {"doc_id": 2, "filter": "strict", "exact_match": 1.0},
        {"doc_id": 0, "filter": "strict", "exact_match": 0.0},
        {"doc_id": 1, "filter": "strict", "exact_match": 1.0},
        {"doc_id": 0, "filter": "flexible", "exact_match": 1.0},
    ]
    assert accuracy.right_answers(samples) == "011"
    assert accuracy.right_answers([{"doc_id": 0, "acc": 1.0, "filter": "none"}]) == "1"
    assert accuracy.right_answers([]) == ""


def test_report_becomes_columns(asked: Questions) -> None:
    found = accuracy.columns(
        report(**{"alias": "x", "exact_match,first_line": 0.8, "exact_match_stderr,first_line": 0.04}),
        asked,
        log_path="log",
    )
    assert found["accuracy"] == 0.8 and found["accuracy_questions"] == 100
    # (0.8 + 0.019207) / 1.038415 = 0.78890, and sqrt(0.16 * 0.038415 + 0.038415^2 / 4) / 1.038415 = 0.07778.
    assert found["accuracy_low"] == pytest.approx(0.71112, abs=2e-4)
    assert found["accuracy_high"] == pytest.approx(0.86668, abs=2e-4)
    assert str(found["accuracy_of"]).startswith("sums.jsonl ")
    assert str(found["accuracy_of"]).endswith(", lm-eval 0.4.9")


def test_report_without_a_share_is_refused(asked: Questions) -> None:
    with pytest.raises(MeasurementError, match="has no exact_match or acc of sweeper_questions; expected"):
        accuracy.columns(report(word_perplexity=12.0), asked, log_path="log")


def test_questions_are_part_of_identity_by_content_alone(
    spec: TrialSpec, asked: Questions, tmp_path: Path
) -> None:
    assert replace(spec, accuracy=None).key != spec.key
    elsewhere = replace(asked, path="/elsewhere/sums.jsonl", python="/other", version="0.5")
    assert replace(spec, accuracy=elsewhere).key == spec.key
    assert replace(spec, accuracy=replace(asked, digest="other")).key != spec.key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; expected questions"),
        ("2+3=5\n", r"line 1: is '2\+3=5'; expected an object with the texts question and answer"),
        (LINE + '{"question": "2+3="}\n', "line 2: is"),
        ("\n" + LINE + '\n{"question": "2+3="}\n', "line 4: is"),
        (LINE.replace("2+3", "2\u2028+3") + '{"question": "2+3="}\n', "line 2: is"),
        ('{"question": "2+3=", "answer": " 5"}\n', "line 1: its answer is ' 5'; expected one line without"),
    ],
)
def test_mistake_in_a_file_is_said_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "sums.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        questions.of({**DEFAULTS, "path": str(path)})


def test_missing_file_and_two_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"accuracy.path: .*none.jsonl cannot be read .* Correct the path"):
        questions.of({**DEFAULTS, "path": str(tmp_path / "none.jsonl")})
    with pytest.raises(ConfigError, match="names path and task; expected one of them"):
        questions.of({**DEFAULTS, "path": "a", "task": "b"})
    assert questions.of(DEFAULTS) is None

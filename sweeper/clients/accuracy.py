"""How right a running engine answers: lm-eval's score on a task, or on a file of questions and answers.

lm-eval lies in an environment of its own and is run once, before the loads. Of a file, a question is sent to
``/v1/completions`` as it stands, greedily, and its answer is right where the first line of what comes back is
the answer of the file, without blanks around it. Nothing is fetched for that.

The interval is Wilson's, of a share among so many questions: it takes them for a sample of many alike.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeper.clients import program
from sweeper.clients.tokenizer import tokenizer_of
from sweeper.engines import Cancelled, Server
from sweeper.engines.environment import client_environment
from sweeper.errors import MeasurementError
from sweeper.intervals import wilson
from sweeper.processes import process
from sweeper.records import FailureClass, Questions, Scalar, TrialSpec
from sweeper.records.text_rows import numbered
from sweeper.text import trial_files

_TASK = "sweeper_questions"
_AT_ONCE = 8
_METRICS = ("exact_match", "acc")


def score(spec: TrialSpec, server: Server, *, cancelled: Cancelled) -> dict[str, Scalar]:
    """Ask a running engine the trial's questions, and return the columns that say how it answered.

    Args:
        spec: The trial, with questions.
        server: Its engine.
        cancelled: Polled; true ends the asking.

    Raises:
        EngineError: Cancelled, past the limit, or the engine died.
        MeasurementError: lm-eval left no score.
    """
    questions = spec.accuracy
    assert questions is not None and questions.python is not None
    folder = Path(spec.folder) / "accuracy"
    folder.mkdir(parents=True, exist_ok=True)
    log_path = Path(spec.folder) / f"client-{spec.attempt}-accuracy.log"
    _clear(folder)
    if questions.path is not None:
        trial_files.write(folder / f"{_TASK}.yaml", json.dumps(task(questions), indent=1))
    environment = client_environment(
        spec, surroundings=os.environ, python=questions.python, owner=process.current(), stub=None
    )
    tokenizer = None if questions.path is not None else tokenizer_of(spec, environment=environment)
    ended = program.run_to_end(
        command(spec, server.base_url, folder, tokenizer=tokenizer),
        env={**environment, **variables(questions, folder), **_key(server)},
        cwd=Path(spec.folder),
        log_path=log_path,
        note={"trial": spec.key},
        limit_s=questions.timeout_s,
        launch_s=spec.engine.launch_timeout_s,
        server=server,
        cancelled=cancelled,
    )
    report = _report(folder)
    if report is None:
        program.blame_engine(server)
        raise MeasurementError(
            f"accuracy: lm-eval ended with exit code {ended.exit_code} and left no score; last line: "
            f"{program.last_words(log_path)}",
            failure=FailureClass.CLIENT,
            log_path=str(log_path),
        )
    found = columns(report, questions, log_path=str(log_path))
    right = right_answers(_samples(folder, questions.task or _TASK))
    # Of a task with parts, lm-eval keeps the answers of each part, and none of the whole.
    return {**found, "accuracy_right": right} if len(right) == found["accuracy_questions"] else found


def command(spec: TrialSpec, base_url: str, folder: Path, *, tokenizer: str | None) -> list[str]:
    """Return lm-eval's command line, without secrets.

    Source:
        EleutherAI/lm-evaluation-harness 0.4.13, docs/interface.md and docs/API_guide.md: local-completions.
    """
    questions = spec.accuracy
    assert questions is not None
    # Nothing has to be counted in a question that is sent as it stands.
    tokens = {"tokenizer_backend": "none"} if tokenizer is None else {"tokenizer": tokenizer}
    model = {
        "model": spec.model.name,
        "base_url": f"{base_url}/v1/completions",
        **tokens,
        "tokenized_requests": False,
        "num_concurrent": _AT_ONCE,
        "max_retries": 1,
    }
    return [
        *(str(questions.python), "-m", "lm_eval", "--model", "local-completions"),
        *("--model_args", ",".join(f"{name}={value}" for name, value in model.items())),
        *("--tasks", questions.task or _TASK, "--output_path", str(folder / "report"), "--log_samples"),
        *(() if questions.path is None else ("--include_path", str(folder))),
        *(() if questions.limit is None else ("--limit", str(questions.limit))),
    ]


def task(questions: Questions) -> dict[str, Any]:
    """Return the task of a file of questions, as lm-eval reads it (JSON is YAML).

    Source:
        EleutherAI/lm-evaluation-harness 0.4.13, docs/task_guide.md.
    """
    return {
        "task": _TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": questions.path}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        # The questions are sent as they stand.
        "target_delimiter": "",
        "generation_kwargs": {
            "until": ["\n"],
            "max_gen_toks": questions.max_tokens,
            "temperature": 0.0,
            "do_sample": False,
        },
        "filter_list": [
            {
                "name": "first_line",
                "filter": [
                    {"function": "regex", "regex_pattern": r"^\s*(.*?)\s*(?:\n|$)", "fallback": ""},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }


def variables(questions: Questions, folder: Path) -> dict[str, str]:
    """Return lm-eval's variables: of a file nothing is fetched, and what datasets keeps of it stays here."""
    if questions.path is None:
        return {}
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    return {**offline, "HF_DATASETS_CACHE": str(folder / "cache"), "HF_EVALUATE_OFFLINE": "1"}


def columns(report: Mapping[str, Any], questions: Questions, *, log_path: str) -> dict[str, Scalar]:
    """Return the columns of a report of lm-eval.

    Raises:
        MeasurementError: It has no share of right answers.
    """
    name = questions.task or _TASK
    results = report.get("results", {}).get(name, {})
    counts = report.get("n-samples", {}).get(name, {})
    # Keys are METRIC,FILTER, in the order of the task, whose first reading counts.
    shares = [
        value
        for wanted in _METRICS
        for key, value in results.items()
        if key.partition(",")[0] == wanted and isinstance(value, int | float) and 0 <= value <= 1
    ]
    asked = counts.get("effective") if isinstance(counts, Mapping) else None
    if not shares or not isinstance(asked, int) or asked < 1:
        raise MeasurementError(
            f"accuracy: lm-eval's report has no {' or '.join(_METRICS)} of {name}; expected a share of right "
            "answers. Choose a task that has one.",
            failure=FailureClass.CLIENT,
            log_path=log_path,
        )
    share = float(shares[0])
    low, high = wilson(share, asked)
    return {
        "accuracy": share,
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_questions": asked,
        "accuracy_of": f"{questions.name}, lm-eval {questions.version}",
    }


def right_answers(samples: Sequence[Mapping[str, Any]]) -> str:
    """Return a 1 for each question that was answered right and a 0 for each other, in the questions' order.

    Args:
        samples: As lm-eval logs them, by any filter; the reading that the score is taken from counts.
    """
    for metric in _METRICS:
        scored = [sample for sample in samples if isinstance(sample.get(metric), int | float)]
        if scored:
            first = scored[0].get("filter")
            ordered = sorted(
                (sample for sample in scored if sample.get("filter") == first),
                key=lambda each: each["doc_id"],
            )
            return "".join("1" if sample[metric] >= 1 else "0" for sample in ordered)
    return ""


def _key(server: Server) -> dict[str, str]:
    """Return the key of the server, which lm-eval reads where it would look for OpenAI's."""
    return {"OPENAI_API_KEY": server.api_key or "none"}


def _report(folder: Path) -> Mapping[str, Any] | None:
    for path in sorted((folder / "report").rglob("results_*.json"), reverse=True):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return None


def _samples(folder: Path, task: str) -> list[dict[str, Any]]:
    """Return what lm-eval logged of each question; nothing where it left no such file, or a broken one."""
    for path in (folder / "report").rglob(f"samples_{task}_*.jsonl"):
        try:
            return [json.loads(line) for _, line in numbered(path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, RecursionError):
            continue
    return []


def _clear(folder: Path) -> None:
    """Remove the reports of an earlier attempt."""
    for name in ("results_*.json", "samples_*.jsonl"):
        for path in (folder / "report").rglob(name):
            path.unlink(missing_ok=True)

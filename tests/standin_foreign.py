"""Stands for aiperf and guidellm: reads their configuration, sends the requests, and writes their reports.

``write_foreign_interpreter`` makes an executable that takes the same command lines as the interpreter of an
environment with one of them. Layouts are those of aiperf 0.13.0 and guidellm 0.8.1. What it shall do wrong
comes from STANDIN: ``die`` (ends with STANDIN_LAST_WORDS in its log), ``slow`` (never ends), ``killed`` (dies
when its requests are written), ``torn`` (the same, within a line), ``lose-one`` (writes one request too few),
``fail-one`` (one request has an error), ``cut-short`` (answers lack a token), ``another`` (the report is of
another version), ``late`` (all requests go out at once).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import stat
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = {"aiperf": "0.13.0", "guidellm": "0.8.1"}


def write_foreign_interpreter(folder: Path, **versions: str) -> Path:
    """Make an executable that stands for an environment with these distributions."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python"
    told = json.dumps(versions or VERSIONS)
    path.write_text(
        f"#!/bin/sh\nexport STANDIN_VERSIONS='{told}'\n"
        f'PYTHONPATH="{ROOT}" exec "{sys.executable}" "{__file__}" "$@"\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def faults() -> set[str]:
    return set(filter(None, os.environ.get("STANDIN", "").split(",")))


def version(name: str) -> str | None:
    told: dict[str, str] = json.loads(os.environ["STANDIN_VERSIONS"])
    return told.get(name)


def send(url: str, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Send one request and time its messages."""
    sent_ns, sent_s = time.time_ns(), time.perf_counter()
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Authorization": f"Bearer {key}"}
    )
    token_s, usage = [], {}
    with urllib.request.urlopen(request, timeout=30) as answer:
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            message = json.loads(line[6:])
            if message["choices"]:
                token_s.append(time.perf_counter() - sent_s)
            usage = message.get("usage") or usage
    short = 1 if "cut-short" in faults() else 0
    return {
        "sent_ns": sent_ns,
        "token_s": token_s,
        "input": usage["prompt_tokens"],
        "output": usage["completion_tokens"] - short,
    }


def ended_badly(log: Path | None) -> None:
    if "slow" in faults():
        time.sleep(600)
    if "die" in faults():
        words = os.environ.get("STANDIN_LAST_WORDS", "no")
        if log is not None:
            log.parent.mkdir(parents=True)
            log.write_text(f"2026-01-01 00:00:00.000 - dataset_manager - ERROR - {words}\n")
        sys.exit(words)


def aiperf(config: Path) -> None:
    told = json.loads(config.read_text())["benchmark"]
    artifacts = Path(told["artifacts"]["dir"])
    ended_badly(artifacts / "logs" / "aiperf.log")
    endpoint, dataset = told["endpoint"], told["dataset"]
    named = re.fullmatch(r"\$\{(\w+)\}", endpoint["apiKey"])
    assert named is not None
    if dataset["type"] == "synthetic":
        prompts = dataset["prompts"]
        turns = [{"input_length": prompts["isl"], "output_length": prompts["osl"]}] * dataset["entries"]
    else:
        rows = [json.loads(line) for line in Path(dataset["path"]).read_text().splitlines()]
        turns = [turn for row in rows for turn in row.get("turns", [row]) if turn.get("role") != "system"]
    lines = []
    for place, turn in enumerate(turns):
        words = turn.get("text") or "x" * turn["input_length"]
        body = {"prompt": words, "max_tokens": turn["output_length"], "stream": True, **endpoint["extra"]}
        # The server of the tests knows completions alone.
        seen = send(f"{endpoint['url']}/v1/completions", os.environ[named[1]], body)
        lines.append(aiperf_line(seen, place))
    if "lose-one" in faults():
        lines.pop()
    if "fail-one" in faults():
        lines[0] = {**lines[0], "metrics": {}, "error": {"type": "HTTP", "message": "503 full"}}
    text = "".join(f"{json.dumps(line)}\n" for line in reversed(lines))
    (artifacts / "profile_export.jsonl").write_text(text)
    if "torn" in faults():
        (artifacts / "profile_export.jsonl").write_text(text[:-40])
    if faults() & {"killed", "torn"}:
        os.kill(os.getpid(), signal.SIGKILL)
    of = "9.9.9" if "another" in faults() else version("aiperf")
    summary = {"aiperf_version": of, "effective_concurrency": {"unit": "requests", "avg": 1.5}}
    (artifacts / "profile_export_aiperf.json").write_text(json.dumps(summary))


def aiperf_line(seen: Mapping[str, Any], place: int) -> dict[str, Any]:
    token_ms = [time_s * 1e3 for time_s in seen["token_s"]]
    gaps = [later - sooner for sooner, later in itertools.pairwise(token_ms)]
    metrics: dict[str, Any] = {
        "input_sequence_length": {"value": seen["input"], "unit": "tokens"},
        "output_sequence_length": {"value": seen["output"], "unit": "tokens"},
        "time_to_first_token": {"value": token_ms[0], "unit": "ms"},
        "request_latency": {"value": token_ms[-1], "unit": "ms"},
    }
    if gaps:
        metrics["inter_chunk_latency"] = {"value": gaps, "unit": "ms"}
    return {
        "metadata": {
            "conversation_id": f"session_{place:06d}",
            "turn_index": 0,
            "request_start_ns": seen["sent_ns"],
            "benchmark_phase": "profiling",
            "was_cancelled": False,
        },
        "metrics": metrics,
        "error": None,
    }


def guidellm(scenario: Path) -> None:
    told = json.loads(scenario.read_text())["spec"]
    ended_badly(None)
    backend, data = told["backend"], told["data"][0]
    rows = []
    for place in range(told["constraints"][0]["count"]):
        body = {"prompt": "x" * data["prompt_tokens"], "max_tokens": data["output_tokens"], "stream": True}
        key = os.environ["GUIDELLM__SPEC__BACKEND__API_KEY"]
        seen = send(f"{backend['target']}/v1/completions", key, {**body, **backend["extras"]["body"]})
        due_s = 9.0 * place if "late" in faults() else seen["sent_ns"] / 1e9 - 1.7e9
        rows.append(guidellm_row(seen, due_s=due_s))
    groups: dict[str, Any] = {"successful": rows, "errored": [], "incomplete": [], "total": None}
    if "lose-one" in faults():
        rows.pop()
    if "fail-one" in faults():
        groups["errored"] = [{"info": {"error": "503 full"}}]
        rows.pop()
    of = "9.9.9" if "another" in faults() else version("guidellm")
    tpot = {"successful": {"mean": 12.5}}
    report = {
        "metadata": {"version": 2, "guidellm_version": of},
        "benchmarks": [{"requests": groups, "metrics": {"time_per_output_token_ms": tpot}}],
    }
    Path(told["outputs"][0]["path"]).write_text(json.dumps(report))


def guidellm_row(seen: Mapping[str, Any], *, due_s: float) -> dict[str, Any]:
    sent_s = seen["sent_ns"] / 1e9
    timings = {
        "targeted_start": due_s,
        "request_start": sent_s,
        "first_token_iteration": sent_s + seen["token_s"][0],
        "last_token_iteration": sent_s + seen["token_s"][-1],
    }
    return {
        "request_args": "the whole prompt",
        "output": "wordword",
        "info": {"timings": timings, "error": None},
        "prompt_tokens": seen["input"],
        "output_tokens": seen["output"],
    }


def main(words: list[str]) -> None:
    if words[0] == "-c":
        print(json.dumps(version(words[2])))
    elif words[:3] == ["-m", "aiperf", "profile"]:
        aiperf(Path(words[words.index("--config") + 1]))
    else:
        assert words[:3] == ["-m", "guidellm", "run"]
        guidellm(Path(words[words.index("--scenario") + 1]))


if __name__ == "__main__":
    main(sys.argv[1:])

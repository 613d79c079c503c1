"""Stands for lm-eval: reads its command line and task, asks the server, and writes a report in its layout.

``write_lm_eval`` makes an executable that takes the same command lines as the interpreter of an environment
with it. The layout is that of lm-eval 0.4.9. With STANDIN_LM_EVAL=die it ends without a report.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VERSION = "0.4.9"


def write_lm_eval(folder: Path) -> Path:
    """Make an executable that stands for the interpreter of lm-eval's environment."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python-lm-eval"
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "{__file__}" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def option(words: list[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words else None


def ask(told: dict[str, str], question: str, tokens: int) -> str:
    body = {"model": told["model"], "prompt": question, "max_tokens": tokens, "temperature": 0}
    request = urllib.request.Request(
        told["base_url"],
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["choices"][0]["text"])


def first_line(task: dict[str, Any], text: str) -> str:
    found = re.findall(task["filter_list"][0]["filter"][0]["regex_pattern"], text)
    return found[0] if found else ""


def main(words: list[str]) -> int:
    if words[0] == "-c":
        print(json.dumps(VERSION))
        return 0
    if os.environ.get("STANDIN_LM_EVAL") == "die":
        print("ConnectionError: the server closed the connection", file=sys.stderr)
        return 1
    told = dict(part.split("=", 1) for part in (option(words, "--model_args") or "").split(","))
    name, folder = option(words, "--tasks"), option(words, "--include_path")
    task = json.loads((Path(folder or "") / f"{name}.yaml").read_text(encoding="utf-8"))
    lines = Path(task["dataset_kwargs"]["data_files"]["test"]).read_text(encoding="utf-8").strip().split("\n")
    rows = [json.loads(line) for line in lines][: int(option(words, "--limit") or len(lines))]
    tokens = task["generation_kwargs"]["max_gen_toks"]
    right = [first_line(task, ask(told, row["question"], tokens)) == row["answer"] for row in rows]
    share = sum(right) / len(right)
    report = {
        "results": {name: {"alias": name, "exact_match,first_line": share}},
        "n-samples": {name: {"original": len(lines), "effective": len(right)}},
    }
    path = Path(option(words, "--output_path") or "") / "model" / "results_2026-01-01T00-00-00.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report), encoding="utf-8")
    if "--log_samples" in words:
        samples = [
            {"doc_id": place, "doc": row, "filter": "first_line", "exact_match": float(is_right)}
            for place, (row, is_right) in enumerate(zip(rows, right, strict=True))
        ]
        logged = path.with_name(f"samples_{name}_2026-01-01T00-00-00.jsonl")
        # As lm-eval writes them: a letter that some take for the end of a line stands as it is.
        lines = [json.dumps(each, ensure_ascii=False) + "\n" for each in samples]
        logged.write_text("".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

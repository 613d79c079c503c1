"""The accuracy gate on the real vLLM: a model that really adds, a setting that spoils it, and the winner.

The model is trained here. lm-eval is installed by ``python -m sweeper install-client lm_eval``, or named by
SWEEPER_LM_EVAL_PYTHON; without it this is left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import standings
from analysis.study import Study
from sweeper.models import tiny
from tests import tiny_adder

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
LM_EVAL = Path(os.environ.get("SWEEPER_LM_EVAL_PYTHON", ROOT / ".venv-lm_eval" / "bin" / "python"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, vllm_python: str) -> Study:
    if not LM_EVAL.exists():
        pytest.skip(f"{LM_EVAL} is missing: python -m sweeper install-client lm_eval")
    folder = tmp_path_factory.mktemp("gate")
    source = tiny.make(folder / "models")
    trainer = [vllm_python, str(Path(tiny_adder.__file__)), str(source), str(folder / "adder")]
    subprocess.run(trainer, check=True, timeout=900)
    words = [
        *("platform=cpu", "executor=inline", "executor.max_parallel=1", "study.name=gate"),
        *(f"study.outputs={folder / 'outputs'}", f"engine.python={vllm_python}", "engine.release=0.32.0"),
        *("model.name=adder", f"model.path={folder / 'adder'}", "workload=smoke", "workload.input_len=32"),
        *("workload.output_len=16", "knobs.enforce_eager=true", "knobs.max_model_len=128"),
        *("knobs.enable_prefix_caching=false", "knobs.max_num_seqs=64"),
        SPOILS,
        f"accuracy.path={ROOT / 'examples' / 'additions.jsonl'}",
        *(f"accuracy.python={LM_EVAL}", "objective.right.metric=accuracy", "objective.right.at_least=0.9"),
    ]
    told = subprocess.run(
        [sys.executable, "-m", "sweeper", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return Study.load(folder / "outputs" / "gate")


# A rotation of positions other than that of its training.
SPOILS = "space.knobs.hf_overrides=['{\"rope_theta\":10000.0}','{\"rope_theta\":2.0}']"


def test_default_answers_right_and_spoiled_setting_fails_the_gate(study: Study) -> None:
    scores = {
        row["knob.hf_overrides"]: (row["accuracy"], row["accuracy_questions"])
        for row in study.frame.to_dict("records")
    }
    right, spoiled = (next(s for name, s in scores.items() if text in name) for text in ("10000", ":2.0"))
    assert right[0] >= 0.95 and right[1] == 100
    assert spoiled[0] < 0.9
    found = standings.standings(study)
    (broken,) = found.breaches
    assert ":2.0" in broken and "accuracy >= 0.9 (is " in found.breaks(broken)


def test_winner_is_the_fastest_that_answers_right(study: Study) -> None:
    (winner,) = standings.standings(study).marked
    assert "10000" in winner

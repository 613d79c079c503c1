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


EXPERIMENT = """\
# @package _global_
# Question: which setting is the fastest that still answers right?
# Command:  python -m sweeper --config-dir conf +experiment=gate
defaults:
  - override /platform: cpu
  - override /workload: smoke
  - override /executor: inline

study:
  experiment: gate
  question: Which setting is the fastest that still answers right?

engine:
  release: "0.32.0"

knobs:
  enforce_eager: true
  max_model_len: 128
  enable_prefix_caching: false
  kv_cache_dtype: auto

workload:
  input_len: 32
  output_len: 16
  request_rate_per_s: [64]

space:
  series:
    careful: {knobs: {max_num_seqs: 4}}
    fast: {knobs: {max_num_seqs: 64}}
    # Positions turn otherwise than in training, so that the order of tokens is lost on it.
    spoiled:
      knobs:
        max_num_seqs: 64
        hf_overrides: '{"rope_parameters": {"rope_theta": 2.0, "rope_type": "default"}}'

objective:
  right:
    metric: accuracy
    at_least: 0.9
  as_before:
    metric: accuracy_loss_high
    at_most: 0.1
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, vllm_python: str) -> Study:
    if not LM_EVAL.exists():
        pytest.skip(f"{LM_EVAL} is missing: python -m sweeper install-client lm_eval")
    folder = tmp_path_factory.mktemp("gate")
    source = tiny.make(folder / "models")
    trainer = [vllm_python, str(Path(tiny_adder.__file__)), str(source), str(folder / "adder")]
    own_cache = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
    subprocess.run(trainer, check=True, timeout=900, env=own_cache)
    experiment = folder / "conf" / "experiment" / "gate.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(EXPERIMENT, encoding="utf-8")
    words = [
        *("--config-dir", str(folder / "conf"), "+experiment=gate", "study.name=gate"),
        *(f"study.outputs={folder / 'outputs'}", f"engine.python={vllm_python}", "executor.max_parallel=1"),
        *("model.name=adder", f"model.path={folder / 'adder'}"),
        f"accuracy.path={ROOT / 'examples' / 'additions.jsonl'}",
        f"accuracy.python={LM_EVAL}",
    ]
    told = subprocess.run(
        [sys.executable, "-m", "sweeper", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return Study.load(folder / "outputs" / "gate")


def test_default_answers_right_and_spoiled_setting_fails_the_gate(study: Study) -> None:
    scores = {row["series"][0]: row for row in study.frame.to_dict("records")}
    for name in ("careful", "fast"):
        assert scores[name]["accuracy"] >= 0.95 and scores[name]["accuracy_questions"] == 100
    assert scores["spoiled"]["accuracy"] < 0.9
    found = standings.standings(study)
    assert set(found.breaches) == {"spoiled"}
    assert found.breaks("spoiled").startswith("accuracy >= 0.9 (is ")
    assert "accuracy_loss_high <= 0.1 (is " in found.breaks("spoiled")
    # Answers of settings that answer alike are told from their own by a few of a hundred questions at most.
    assert scores["careful"]["accuracy_loss"] == 0.0 and abs(scores["fast"]["accuracy_loss"]) <= 0.05
    assert scores["spoiled"]["accuracy_loss"] == pytest.approx(
        scores["careful"]["accuracy"] - scores["spoiled"]["accuracy"]
    )


def test_winner_is_the_fastest_that_answers_right(study: Study) -> None:
    rates = study.frame.set_index(study.frame["series"].str[0])["request_throughput_per_s"]
    assert standings.standings(study).marked == (rates.drop("spoiled").idxmax(),)

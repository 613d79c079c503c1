"""A study whose objective and bound are numbers of the steady part: searched, ranked, resumed and refused."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

import sweeper
from analysis.cli import main as analysis
from sweeper import config
from sweeper.errors import ConfigError
from sweeper.records import Platform
from sweeper.search import database

THROUGHPUT, TTFT = "steady_output_throughput_tok_per_s", "steady_p99_ttft_ms"
LOAD = ("platform=simulated", "executor=inline", "model=llama_3_1_8b", "workload=random")
WORDS = (
    *LOAD,
    *("study.name=steady", "knobs.max_model_len=8192", "space.knobs.max_num_seqs=8,16,64"),
    *("workload.request_rate_per_s=[8]", "search=random", "search.trials=3"),
    f"objective.throughput.metric={THROUGHPUT}",
)


def test_search_and_report_rank_by_the_steady_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bound = f"objective.wait={{metric: {TTFT}, at_most: 1000}}"
    frame = sweeper.run(*WORDS, bound, is_quiet=True).frame
    stored = frame.set_index("trial_key")[[THROUGHPUT, TTFT, "knob.max_num_seqs"]]
    kept = stored[stored[TTFT] <= 1000]
    assert 0 < len(kept) < len(stored), "the load is one that few sequences do not keep up with"
    best = kept[THROUGHPUT].idxmax()
    # The search was told the numbers that are stored.
    storage = database.open_storage(database.file_url(tmp_path / "outputs" / "optuna.db"))
    told = optuna.load_study(study_name="steady", storage=storage).get_trials()
    by_key = {trial.user_attrs["key"]: trial for trial in told}
    for key, row in stored[stored[THROUGHPUT].notna()].iterrows():
        assert by_key[key].value == pytest.approx(row[THROUGHPUT])
        assert by_key[key].user_attrs["feasible"] is bool(row[TTFT] <= 1000)
    # The leaderboard puts the same setting first.
    assert analysis(["leaderboard", "outputs/steady", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["settings"][0]
    assert first["trial"] == best and first["keeps_bounds"]
    assert first["values"][THROUGHPUT]["mean"] == pytest.approx(stored.loc[best, THROUGHPUT])
    # Again: read from the store, nothing is measured twice.
    sweeper.run(*WORDS, bound)
    assert "started now: 0" in capsys.readouterr().out


def refusal(*words: str) -> str:
    composed = config.compose_run([*LOAD, *words])
    with pytest.raises(ConfigError) as caught:
        config.settings(composed, platform=Platform.SIMULATED)
    return str(caught.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["workload.request_rate_per_s=[null]"],
            f"objective.throughput.metric: is {THROUGHPUT}, and load point 'all at once' sends all of them "
            "at once, so that the load is never steady; expected a request_rate_per_s, or users "
            "(max_concurrency). ",
        ),
        (
            ["workload.request_rate_per_s=[8]", "workload.num_prompts=29"],
            f"objective.throughput.metric: is {THROUGHPUT}, and load point '8 QPS' sends 29 prompts, too few "
            "for a steady part; expected 30 or more, and better ten times as many. ",
        ),
        (
            ["workload.request_rate_per_s=[8]", "client=locust"],
            f"objective: asks for {THROUGHPUT}, and client locust tells no times of single requests, of "
            "which the steady part of a run is found; expected client vllm_bench or aiperf or guidellm. ",
        ),
        (
            ["client=offline", "workload.dataset=throughput"],
            f"objective.throughput.metric: is {THROUGHPUT}, which dataset throughput does not tell; ",
        ),
    ],
)
def test_what_can_never_have_a_steady_part_is_refused(words: list[str], expected: str) -> None:
    assert refusal(*words, f"objective.throughput.metric={THROUGHPUT}").startswith(expected)


def test_load_point_that_an_entry_names_is_looked_at_alone() -> None:
    words = ["workload.request_rate_per_s=[8,null]", f"objective.throughput.metric={THROUGHPUT}"]
    composed = config.compose_run([*LOAD, *words, "objective.throughput.request_rate_per_s=8"])
    found = config.settings(composed, platform=Platform.SIMULATED)
    assert found.objectives[0].name == f"{THROUGHPUT} at 8 QPS"

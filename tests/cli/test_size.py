"""``python -m sweeper size`` as typed: from the simulated platform, from a study, and with mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper.cli import main
from sweeper.records import LoadPoint, TrialResult
from tests.analysis.conftest import study_folder, trial

__all__ = ["study_folder", "trial"]

ASKED = ("--input-len", "512", "--output-len", "64", "model=llama_3_1_8b")
ONE_SIZE = "knobs.tensor_parallel_size=1"
MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]


def sized(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert main(["size", *words, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def gpus(found: dict[str, object]) -> int:
    answer = found["answer"]
    assert isinstance(answer, dict)
    return int(answer["gpus"])


def test_fifty_requests_per_second_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    asked = (*ASKED, "--slo", "p99_ttft_ms<=2000", "--price", "2.5", "--currency", "EUR")
    assert main(["size", "--rate", "50", *asked, ONE_SIZE]) == 0
    told = capsys.readouterr().out
    assert told.startswith("SIMULATED: ") and "answer: SIMULATED: " in told
    assert "asked: 50 requests per second with p99_ttft_ms <= 2000" in told
    assert "never compared with a measured fleet" in told
    found = sized(capsys, "--rate", "50", *asked)
    assert found["provenance"] == "simulated"
    answer = found["answer"]
    assert isinstance(answer, dict)
    assert answer["fewest_gpus"] <= answer["gpus"] <= answer["most_gpus"]
    assert answer["cost_per_hour"] == pytest.approx(2.5 * answer["gpus"])
    assert answer["instances"] * answer["requests_per_s_per_instance"] >= 50
    others = found["others"]
    assert isinstance(others, list)
    assert all(other["gpus"] >= answer["gpus"] for other in others)


def test_more_load_and_tighter_bounds_never_take_fewer_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(rate: int, bound_ms: int) -> int:
        asked = ("--rate", str(rate), "--slo", f"p99_ttft_ms<={bound_ms}", *ASKED, ONE_SIZE)
        return gpus(sized(capsys, *asked))

    loose, usual, tight = (answer(640, bound_ms) for bound_ms in (5000, 500, 100))
    assert loose <= usual <= tight
    assert answer(40, 500) < usual


@pytest.fixture
def study(trial: MakeTrial, study_folder: MakeFolder) -> str:
    """Two starts at 2, 4 and 8 requests per second; p99 TTFT is 1000, 1800 and 3000 ms."""
    latency = {2.0: 1000.0, 4.0: 1800.0, 8.0: 3000.0}

    def runs(point: LoadPoint) -> list[list[dict[str, float]]]:
        rate = point.request_rate_per_s or 0.0
        lasting = {"completed": 1000.0, "duration_s": 1000 / rate + 2, "median_e2el_ms": 2000.0}
        return [
            [{"request_throughput_per_s": rate, "p99_ttft_ms": latency[rate] + more, **lasting}]
            for more in (-10.0, 10.0)
        ]

    result = trial(series=("tuned",), rates=tuple(latency), runs_at=runs)
    return str(study_folder(result))


def test_study_says_what_its_loads_served(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = sized(capsys, study, "--rate", "50", "--slo", "p99_ttft_ms<=2000", "--price", "2")
    answer = found["answer"]
    assert isinstance(answer, dict)
    # 4 per second kept it, even at the end of its interval (1800 ± 127 ms), and 8 did not:
    # 50 / 4 = 12.5 instances of four GPUs, and 50 / 8 = 6.25 at the least.
    assert (answer["instances"], answer["gpus"], answer["cost_per_hour"]) == (13, 52, 104.0)
    assert (answer["fewest_instances"], answer["most_instances"]) == (7, 13)
    tight = sized(capsys, study, "--rate", "50", "--slo", "p99_ttft_ms<=1850")
    answer = tight["answer"]
    assert isinstance(answer, dict)
    # 1927 ms is past the bound, so only 2 per second surely keep it.
    assert (answer["instances"], answer["most_instances"]) == (13, 25)


def test_nothing_is_answered_where_no_load_keeps_the_bounds(
    study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["size", study, "--rate", "50", "--slo", "p99_ttft_ms<=100"]) == 0
    assert "answer: none: no setting keeps the bounds and answers as fast" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rate", "5"], "--slo: is not given"),
        (["--slo", "p99_ttft_ms<=1"], "--rate: is not given"),
        (["--slo", "p99_ttft_ms<=1", "--rate", "0"], "--rate: is 0"),
        (["--slo", "p99_ttft_ms<=1", "--rate", "5"], "--input-len, --output-len: are not both given"),
        (["--slo", "p99_ttft_ms<=1", "--rate", "5", "nowhere"], "nowhere: no such folder"),
        (["--slo", "p99_ttft_ms<=1", "--rate", "5", *ASKED, "model=none"], "model"),
        (["--slo", "p99_ttft_ms<=1", "--log", "nowhere.csv"], "nowhere.csv"),
        (["--slo", "p99_ttft_ms<=1", "--rate", "5", "--price", "0"], "--price: is 0"),
        (["--slo", "p99_ttft_ms<=1", "--rate", "5", "a", "b"], "expected one study's folder"),
    ],
)
def test_mistake_is_one_sentence(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and message in told and "Traceback" not in told


def test_log_of_requests_says_rate_and_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.csv"
    rows = [f"2024-05-10 00:00:{n % 60:02}.{n:06},512,64" for n in range(0, 60)]
    log.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]), encoding="utf-8")
    asked = ("--log", str(log), "--slo", "p99_ttft_ms<=2000", "model=llama_3_1_8b", ONE_SIZE)
    found = sized(capsys, *asked)
    assert found["rate_per_s"] == pytest.approx(1.0, rel=0.05)
    assert "prompts of 512 and answers of 64 tokens" in str(found["source"])
    # One request a second is far below what an instance serves, at both ends of what is known of it.
    assert (found["answer"]["fewest_gpus"], found["answer"]["most_gpus"]) == (1, 1)
    assert main(["size", *asked]) == 0
    assert "uncertain: no, 1 GPU at either end" in capsys.readouterr().out


def test_long_requests_of_a_log_count_and_not_their_mean_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # One in ten has 18,440 tokens and the others 512: 2304.8 in the mean.
    log = tmp_path / "log.csv"
    rows = [f"{n},{18440 if n % 10 == 0 else 512},64" for n in range(60)]
    log.write_text("\n".join(["time,input_tokens,output_tokens", *rows]), encoding="utf-8")
    bound = ("--rate", "5", "--slo", "p99_ttft_ms<=2000", "model=llama_3_1_8b", ONE_SIZE)
    own = sized(capsys, "--log", str(log), *bound)
    alike = sized(capsys, "--input-len", "2305", "--output-len", "64", *bound)
    served = [found["answer"]["requests_per_s_per_instance"] for found in (own, alike)]
    assert served[0] < 0.8 * served[1]
    assert "up to 18,504 tokens together" in str(own["source"])


def test_simulated_study_has_the_uncertainty_of_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("platform=simulated", "executor=inline", "study.name=rates", "model=llama_3_1_8b")
    load = ("workload=random", "workload.num_prompts=100", "workload.request_rate_per_s=[1,4,16]")
    assert main([*words, *load, "space.knobs.max_num_seqs=256", "engine.release=0.32.0"]) == 0
    capsys.readouterr()
    assert main(["size", "outputs/rates", "--rate", "50", "--slo", "p99_ttft_ms<=2000"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("SIMULATED study rates: random, prompts of 1024 and answers of 128 tokens")
    assert "the bad end is where the model's intervals keep the bounds" in told
    answer = sized(capsys, "outputs/rates", "--rate", "50", "--slo", "p99_ttft_ms<=2000")["answer"]
    assert isinstance(answer, dict)
    # 16 per second is the heaviest that was tried: 50 / 16 = 3.1 instances.
    assert answer["instances"] == 4 and answer["fewest_instances"] is None

"""A study of SGLang from the command line to its report: stand-ins of both environments, all else is real."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from sweeper import cli
from tests import standin_server, standin_sglang

COMMON = ("platform=cpu", "model=tiny_llama", "workload=smoke", "executor=inline", "study.name=study")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "conf"
VARIES = "space.knobs.max_running_requests=[4,8]"


@pytest.fixture
def pythons(tmp_path: Path) -> tuple[str, str]:
    """Interpreters of SGLang's environment and of vLLM's."""
    sglang = standin_sglang.write_interpreter(tmp_path / "sglang")
    return str(sglang), str(standin_server.write_interpreter(tmp_path / "vllm"))


def ran(folder: Path, words: Sequence[str]) -> pd.DataFrame:
    assert cli.main([*COMMON, f"study.outputs={folder}", *words]) == cli.OK
    return pd.read_parquet(folder / "study" / "measurements")


def test_study_of_sglang_is_measured_by_vllms_benchmark(
    tmp_path: Path, pythons: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        *("engine=sglang", f"engine.python={pythons[0]}", f"client.python={pythons[1]}"),
        *("knobs.attention_backend=torch_native", VARIES),
    )
    rows = ran(tmp_path, words)
    assert set(rows["state"]) == {"complete"}
    assert set(rows["engine"]) == {"sglang"}
    assert set(rows["engine_release"]) == {standin_sglang.RELEASE}
    assert set(rows["version.sglang"]) == {standin_sglang.RELEASE}
    # The vLLM whose benchmark it was.
    assert set(rows["client_version"]) == {standin_server.RELEASE}
    assert sorted(set(rows["knob.max_running_requests"])) == [4, 8]
    asked, runs = rows["knob.max_running_requests"], rows["effective.max_running_requests"]
    assert list(asked) == list(runs)
    assert set(rows["prefix_cache_hit_rate"]) == {0.25}
    assert set(rows["effective.device_mask"]) <= {f"SGLANG_CPU_OMP_THREADS_BIND={core}" for core in range(64)}
    report = (tmp_path / "study" / "report.md").read_text(encoding="utf-8")
    lines = [line for line in report.splitlines() if "sglang.launch_server" in line]
    # What to serve with is what ran, without the port that it had for us; below it stands what ran.
    assert "--max-running-requests 4" in lines[0]
    assert "--port" not in lines[0]
    assert "--port" in lines[-1]
    assert "| sglang | 0.5.23 |" in report
    told = capsys.readouterr().out
    assert f"engine: SGLang 0.5.23 at {pythons[0]}" in told
    captions = [path.read_text() for path in (tmp_path / "study" / "figures").glob("*.svg")]
    assert all("SGLang 0.5.23" in text and "vLLM unknown" not in text for text in captions)


def test_example_puts_sglang_beside_vllm(
    tmp_path: Path, pythons: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPER_SGLANG_PYTHON", pythons[0])
    words = (
        *("--config-dir", str(EXAMPLES), "+experiment=sglang_beside_vllm", f"engine.python={pythons[1]}"),
        "workload.request_rate_per_s=[null]",
    )
    rows = ran(tmp_path, words)
    assert set(rows["state"]) == {"complete"}
    assert {name for series in rows["series"] for name in series} == {
        *("vllm", "vllm_no_cache", "sglang", "sglang_no_cache")
    }
    found = rows.drop_duplicates("engine").set_index("engine")
    assert dict(found["engine_release"]) == {
        "vllm": standin_server.RELEASE,
        "sglang": standin_sglang.RELEASE,
    }
    assert found.loc["sglang", "client_version"] == standin_server.RELEASE
    assert "vllm.entrypoints" in found.loc["vllm", "command"]
    assert pythons[0] in found.loc["sglang", "command"]
    report = (tmp_path / "study" / "report.md").read_text(encoding="utf-8")
    assert "SGLang, no prefix cache" in report
    # Where one is absent, the plan says which variable names it.
    monkeypatch.delenv("SWEEPER_SGLANG_PYTHON")
    assert cli.main([*COMMON, f"study.outputs={tmp_path}", *words, "plan=true"]) != cli.OK


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "a knob of vLLM": (("knobs.max_num_seqs=8",), "SGLang 0.5.23 has no flag of this name"),
    "a model of it": (
        ("platform=simulated",),
        "the simulated engine and the simulated platform belong together",
    ),
    "a command": (
        ("engine.command=sglang",),
        "only TGI is started by a command: vLLM and SGLang are started by",
    ),
    "benchmarks without a server": (
        ("client=offline", "workload=random", "workload.dataset=throughput"),
        "engine.kind is 'sglang'; expected vllm alone",
    ),
    "a script": (("client.script=/benchmarks",), "client.script: is '/benchmarks', and SGLang is loaded by"),
    "another release": (("engine.release=0.5.9",), "has SGLang 0.5.23, which says what it is"),
    "replicas of vLLM": (
        ("knobs.instances=2", "engine.instances_by=data_parallel"),
        "is 'data_parallel', which SGLang does not have",
    ),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_what_does_nothing_for_sglang_is_refused(
    tmp_path: Path, pythons: tuple[str, str], capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    words, said = MISTAKES[mistake]
    given = (
        "engine=sglang",
        f"engine.python={pythons[0]}",
        f"client.python={pythons[1]}",
        VARIES,
        "plan=true",
    )
    assert cli.main([*COMMON, f"study.outputs={tmp_path}", *given, *words]) != cli.OK
    told = capsys.readouterr()
    assert said in " ".join((told.err + told.out).split())


def test_missing_benchmark_is_told_with_key_that_names_one(
    tmp_path: Path,
    pythons: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPER_VLLM_PYTHON", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    words = ("engine=sglang", f"engine.python={pythons[0]}", VARIES, "plan=true")
    assert cli.main([*COMMON, f"study.outputs={tmp_path}", *words]) != cli.OK
    told = capsys.readouterr()
    assert "client.python: is not given and no vLLM was found, whose benchmark loads SGLang" in told.err
    assert cli.main([*COMMON, f"study.outputs={tmp_path}", "engine=sglang", VARIES, "plan=true"]) != cli.OK
    assert "engine.python: is not given and no SGLang was found" in capsys.readouterr().err

"""Studies of images, as a user runs them: two images as values of one study, and two studies compared.

The engine is the stand-in, whose release the image chooses; that the real vLLM runs so, too, is in
``test_real_container``. Skipped, with the reason, where no container can run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from sweeper.store.store import Store
from tests import runtimes as containing
from tests import standin_sglang
from tests.runtimes import Runtime
from tests.standin_server import write_interpreter

ROOT = Path(__file__).resolve().parents[1]
OLD, NEW = "localhost/sweeper-vllm:0.31", "localhost/sweeper-vllm:0.32"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with containing.opened(tmp_path_factory.mktemp("podman")) as found:
        for image in (OLD, NEW):
            found.image(image, f"ENV STANDIN_VERSION={image.rpartition(':')[2]}.0")
        yield found


def study(folder: Path, python: Path, name: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    setting = ("space.knobs.max_num_seqs=[8]", "space.knobs.max_num_batched_tokens=[2048]")
    return sweep(folder, python, name, "+experiment=cpu_smoke", *setting, *overrides)


def sweep(folder: Path, python: Path, name: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    arguments = ",".join(containing.mounts_of_this_machine(python.parent))
    return subprocess.run(
        [
            *(sys.executable, "-m", "sweeper", f"study.name={name}", f"study.outputs={folder}"),
            *("executor=inline", "engine.container_runtime=podman", f"engine.python={python}"),
            *(f"engine.container_arguments=[{arguments}]", *overrides),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="module")
def compared(podman: Runtime, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One study whose knob is the image: its folder, and what was printed."""
    outputs = tmp_path_factory.mktemp("outputs")
    python = write_interpreter(tmp_path_factory.mktemp("bin"))
    done = study(outputs, python, "images", f"+space.knobs.image=[{OLD},{NEW}]")
    assert done.returncode == 0, done.stdout + done.stderr
    for name, image in (("old", OLD), ("new", NEW)):
        done_one = study(outputs, python, name, f"engine.image={image}")
        assert done_one.returncode == 0, done_one.stdout + done_one.stderr
    assert podman.running() == []
    return outputs, done.stdout


def rows_of(folder: Path) -> pd.DataFrame:
    return Store(folder).read().drop_duplicates("trial_key").set_index("image").sort_index()


@pytest.mark.slow
def test_each_image_is_run_with_its_own_release_and_told_by_its_digest(compared: tuple[Path, str]) -> None:
    rows = rows_of(compared[0] / "images")
    assert list(rows.index) == [OLD, NEW]
    assert list(rows["engine_release"]) == ["0.31.0", "0.32.0"]
    assert list(rows["state"]) == ["complete", "complete"]
    assert rows["image_digest"].nunique() == 2
    assert rows["image_digest"].str.fullmatch("sha256:[0-9a-f]{64}").all()
    # Two studies of one image each: the digest, and so the key, is the same, whatever named the image.
    alone = rows_of(compared[0] / "new")
    assert alone.loc[NEW, "trial_key"] == rows.loc[NEW, "trial_key"]


@pytest.mark.slow
def test_releases_are_said_and_the_line_that_serves_is_the_runtimes_whole_command(
    compared: tuple[Path, str],
) -> None:
    printed = compared[1]
    assert f"of image {OLD} (podman, sha256:" in printed and ": vLLM 0.31.0" in printed
    (line,) = [line.strip() for line in printed.splitlines() if line.strip().startswith("podman run")]
    assert "--network host --ipc host" in line and f"--entrypoint vllm {OLD} serve " in line.replace(NEW, OLD)
    assert line.endswith("--max-num-batched-tokens 2048 --max-num-seqs 8")
    assert "sweeper." not in line and "--name" not in line and "SWEEPER_" not in line


@pytest.mark.slow
def test_comparison_names_images_and_moved_defaults_and_a_verdict_at_each_load(
    compared: tuple[Path, str],
) -> None:
    outputs = compared[0]
    command = [sys.executable, "-m", "analysis", "compare", str(outputs / "old"), str(outputs / "new")]
    subprocess.run([*command, "--out", str(outputs / "compare")], cwd=ROOT, check=True, capture_output=True)
    text = (outputs / "compare" / "compare.md").read_text(encoding="utf-8")
    assert f"| Image | {OLD} | {NEW} |" in text and "| Image digest | sha256:" in text
    assert "| version.vllm | 0.31.0 | 0.32.0 |" in text
    assert "## Defaults that moved" in text
    assert "| the one setting | 8 QPS | 12.00 | 12.00 | 1.000 (no interval) | inconclusive" in text


@pytest.mark.slow
def test_settings_share_one_start_of_an_image(podman: Runtime, tmp_path: Path) -> None:
    python = write_interpreter(tmp_path / "bin")
    done = study(
        *(tmp_path / "outputs", python, "live", f"engine.image={NEW}", "engine.live=true"),
        *("space.knobs.max_num_seqs=[2,4,8]", "platform.devices=1"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = Store(tmp_path / "outputs" / "live").read().drop_duplicates("trial_key")
    assert sorted(rows["live_trial"]) == [0, 1, 2]
    assert list(rows["effective.max_num_seqs"]) == list(rows["knob.max_num_seqs"])
    assert set(rows["image"]) == {NEW} and rows["started_with"].nunique() == 1
    assert len(list(tmp_path.glob("outputs/live/trials/*/engine-*.log"))) == 1
    assert podman.running() == []


@pytest.mark.slow
def test_sglang_runs_in_its_image_and_vllms_benchmark_outside(podman: Runtime, tmp_path: Path) -> None:
    sglang = standin_sglang.write_interpreter(tmp_path / "sglang")
    benchmark = write_interpreter(tmp_path / "vllm")
    done = sweep(
        *(tmp_path / "outputs", sglang, "sglang", f"engine.image={NEW}", "engine=sglang", "platform=cpu"),
        *("model=tiny_llama", "workload=smoke", "workload.request_rate_per_s=[null]"),
        *(f"client.python={benchmark}", "space.knobs.max_running_requests=[8]", "platform.devices=1"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = Store(tmp_path / "outputs" / "sglang").read()
    assert set(rows["state"]) == {"complete"} and set(rows["engine_release"]) == {standin_sglang.RELEASE}
    assert rows["image_digest"].str.fullmatch("sha256:[0-9a-f]{64}").all()
    assert set(rows["effective.max_running_requests"]) == {8}
    assert podman.running() == []

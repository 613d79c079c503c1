"""The line to serve with: the model's address and label, and none for a server that is not ours."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis import blog, report, serving
from analysis.study import Study
from sweeper.records import ContainerSpec, Model, Provenance, TrialResult
from sweeper.store.store import Store
from tests.analysis.conftest import MakeTrial
from tests.container_commands import BLOCKS, IMAGE, words_of

RUNS = [[{"request_throughput_per_s": 5.0}]]
FOLDER = "/data/models/Llama 3.1 8B"


def frame_of(tmp_path: Path, *results: TrialResult) -> pd.DataFrame:
    store = Store(tmp_path / "steps")
    for result in results:
        store.append(result, queued_s=0.0, knobs=[])
    return Store.latest(store.read())


def line_of(tmp_path: Path, result: TrialResult) -> str:
    return serving.serve_line(frame_of(tmp_path, result), result.spec.key)


def by_engine(result: TrialResult, kind: str, **changes: object) -> TrialResult:
    spec = replace(result.spec, engine=replace(result.spec.engine, kind=kind))
    return replace(result, spec=spec, **changes)  # type: ignore[arg-type]


def test_folder_is_served_from_where_it_lies_and_under_its_label(
    trial: MakeTrial, llama_70b: Model, tmp_path: Path
) -> None:
    model = replace(llama_70b, name="my-llama", path=FOLDER, revision="0123456789abcdef")
    tuned = trial(model=model, runs=RUNS, knobs={"max_num_seqs": 64, "NCCL_MIN_NCHANNELS": 112})
    # Quoted for a shell; the revision of a folder is a hash of its content, which no hub knows.
    assert line_of(tmp_path, tuned) == (
        f"NCCL_MIN_NCHANNELS=112 vllm serve '{FOLDER}' --served-model-name my-llama --port 8000 "
        "--max-num-seqs 64"
    )


def test_revision_of_hub_is_said(trial: MakeTrial, llama_70b: Model, tmp_path: Path) -> None:
    pinned = trial(model=replace(llama_70b, revision="abc123"), runs=RUNS)
    assert line_of(tmp_path, pinned) == (
        "vllm serve meta-llama/Llama-3.1-70B-Instruct --revision abc123 --port 8000"
    )


def test_weights_that_do_not_exist_are_not_looked_for(
    trial: MakeTrial, llama_70b: Model, tmp_path: Path
) -> None:
    tiny = trial(model=replace(llama_70b, name="tiny", path="/models/tiny", is_dummy=True), runs=RUNS)
    assert line_of(tmp_path, tiny) == (
        "vllm serve /models/tiny --served-model-name tiny --load-format dummy --port 8000"
    )


def test_rows_from_before_address_was_stored_tell_it_by_their_command(
    trial: MakeTrial, tmp_path: Path
) -> None:
    made = trial(runs=RUNS, provenance=Provenance.MEASURED, release="0.32.0")
    made = replace(made, command=("python", "-m", "vllm.entrypoints.openai.api_server", "--model", FOLDER))
    frame = frame_of(tmp_path, made).drop(columns="model_path")
    assert serving.serve_line(frame, made.spec.key) == (
        f"vllm serve '{FOLDER}' --served-model-name meta-llama/Llama-3.1-70B-Instruct --port 8000"
    )


def test_of_endpoint_that_somebody_else_started_it_is_said_what_was_measured(
    trial: MakeTrial, tmp_path: Path
) -> None:
    attached = by_engine(
        trial(runs=RUNS, provenance=Provenance.MEASURED, release="0.32.0"), "attach", command=()
    )
    frame = frame_of(tmp_path, attached)
    assert serving.serve_line(frame, attached.spec.key) == ""
    said = (
        "Measured at an endpoint that already ran and serves meta-llama/Llama-3.1-70B-Instruct by vLLM 0.32.0"
    )
    assert serving.why_no_line(frame, attached.spec.key).startswith(said)

    written = report.write(tmp_path / "steps").report.read_text(encoding="utf-8")
    assert said in written
    assert "vllm serve" not in written
    blog.write([Study.load(tmp_path / "steps")], out=tmp_path / "article")
    article = "\n".join(path.read_text("utf-8") for path in (tmp_path / "article").rglob("*.md"))
    assert said in article
    assert "vllm serve" not in article


def test_tgi_is_served_by_command_that_ran_with_its_variables_and_without_our_port(
    trial: MakeTrial, tmp_path: Path
) -> None:
    knobs = {"num_shard": 8, "ROCM_USE_FLASH_ATTN_V2_TRITON": "true"}
    ran = ("text-generation-launcher", "--model-id", "org/m", "--hostname", "127.0.0.1", "--port", "40123")
    made = trial(runs=RUNS, provenance=Provenance.MEASURED, knobs=knobs)
    made = by_engine(made, "tgi", command=(*ran, "--num-shard", "8"), versions={"tgi": "3.0.0"})
    assert line_of(tmp_path, made) == (
        "ROCM_USE_FLASH_ATTN_V2_TRITON=true text-generation-launcher --model-id org/m --num-shard 8"
    )


@pytest.mark.parametrize(
    ("kind", "within", "served"),
    [
        (
            "tgi",
            ("text-generation-launcher", "--model-id", "org/m", "--hostname", "127.0.0.1", "--port", "40123"),
            ("text-generation-launcher", "--model-id", "org/m"),
        ),
        (
            "sglang",
            (
                "python3",
                "-m",
                "sglang.launch_server",
                "--model-path",
                "o/m",
                "--host",
                "::1",
                "--port",
                "4",
            ),
            ("python3", "-m", "sglang.launch_server", "--model-path", "o/m"),
        ),
    ],
)
def test_engine_without_flags_of_vllm_is_served_in_its_image_by_a_command_of_the_runtime(
    trial: MakeTrial, tmp_path: Path, kind: str, within: tuple[str, ...], served: tuple[str, ...]
) -> None:
    # The runtime's words are those that the product makes for a block of GPUs.
    started = words_of("docker", BLOCKS[0], tmp_path)
    place = started.index(IMAGE)
    program = started.index("--entrypoint") + 1
    ran = (*started[:program], within[0], *started[program + 1 : place + 1], *within[1:])
    made = trial(runs=RUNS, provenance=Provenance.MEASURED, knobs={"SOME_SWITCH": 1})
    container = ContainerSpec(image=IMAGE, runtime="docker", digest="sha256:0", mounts=())
    made = by_engine(made, kind, command=ran, versions={kind: "3.0.0"})
    spec = replace(made.spec, engine=replace(made.spec.engine, container=container))
    words = shlex.split(line_of(tmp_path, replace(made, spec=spec)))
    assert words[:4] == ["docker", "run", "--rm", "--init"]
    assert words[words.index("--entrypoint") :] == ["--entrypoint", served[0], IMAGE, *served[1:]]
    assert words[words.index("SOME_SWITCH=1") - 1] == "--env"
    assert "--name" not in words and "--label" not in words and "127.0.0.1" not in words


def test_modelled_tgi_has_no_line(trial: MakeTrial, tmp_path: Path) -> None:
    assert line_of(tmp_path, by_engine(trial(runs=RUNS), "tgi", command=())) == ""


def test_line_with_flag_that_is_gone_says_up_to_which_release_it_is_valid(
    trial: MakeTrial, tmp_path: Path
) -> None:
    steps = trial(runs=RUNS, release="0.6.2", knobs={"num_scheduler_steps": 15, "max_num_seqs": 64})
    # The parser of vLLM 0.10.1 is the first that does not know --num-scheduler-steps.
    assert serving.valid_until(frame_of(tmp_path, steps), steps.spec.key) == (
        "This line is for vLLM 0.6.2 and valid up to 0.10.0: newer releases lack --num-scheduler-steps."
    )


def test_line_that_newest_release_takes_needs_no_such_sentence(trial: MakeTrial, tmp_path: Path) -> None:
    plain = trial(runs=RUNS, release="0.6.2", knobs={"max_num_seqs": 64, "NCCL_MIN_NCHANNELS": 112})
    assert serving.valid_until(frame_of(tmp_path, plain), plain.spec.key) == ""


def test_of_several_flags_that_are_gone_first_to_go_counts(trial: MakeTrial, tmp_path: Path) -> None:
    # --swap-space went with 0.18.0, long after --num-scheduler-steps.
    both = trial(runs=RUNS, release="0.6.2", knobs={"num_scheduler_steps": 15, "swap_space": 4})
    assert serving.valid_until(frame_of(tmp_path, both), both.spec.key) == (
        "This line is for vLLM 0.6.2 and valid up to 0.10.0: newer releases lack --num-scheduler-steps "
        "and --swap-space."
    )


def test_line_of_the_newest_release_stands_beside_one_that_it_would_refuse(
    trial: MakeTrial, tmp_path: Path
) -> None:
    tuned = {
        "num_scheduler_steps": 10,
        "max_seq_len_to_capture": 16384,
        "enable_chunked_prefill": False,
        "NCCL_MIN_NCHANNELS": 112,
    }
    steps = trial(runs=RUNS, release="0.6.2", knobs=tuned)
    found = serving.today(frame_of(tmp_path, steps), steps.spec.key)
    assert found is not None
    assert found.about.endswith(
        "Nearest to it for vLLM 0.33.0, which was not measured: max_seq_len_to_capture is left out (V1 "
        "captures graphs by tokens per step, not by sequence length, so no value of another knob means the "
        "same); num_scheduler_steps=10 becomes async_scheduling=True."
    )
    assert found.line.startswith("NCCL_MIN_NCHANNELS=112 vllm serve ")
    assert found.line.endswith("--port 8000 --async-scheduling --no-enable-chunked-prefill")
    assert "num-scheduler-steps" not in found.line


def test_line_that_the_newest_release_takes_has_none_beside_it(trial: MakeTrial, tmp_path: Path) -> None:
    plain = trial(runs=RUNS, release="0.6.2", knobs={"max_num_seqs": 64})
    assert serving.today(frame_of(tmp_path, plain), plain.spec.key) is None


def test_setting_that_the_newest_release_refuses_altogether_has_a_reason_and_no_line(
    trial: MakeTrial, tmp_path: Path
) -> None:
    # Without chunks a step must hold the longest prompt; 0.6.2 was never asked.
    knobs = {"swap_space": 4, "enable_chunked_prefill": False}
    knobs |= {"max_num_batched_tokens": 512, "max_model_len": 2048}
    made = trial(runs=RUNS, release="0.6.2", knobs=knobs)
    found = serving.today(frame_of(tmp_path, made), made.spec.key)
    assert found is not None
    assert found.line == ""
    assert "vLLM 0.33.0 has no counterpart of it" in found.about
    assert "refuses fewer tokens in a step than max_model_len = 2048" in found.about

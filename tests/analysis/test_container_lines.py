"""The line that serves in a container: what the sweeper added for itself is gone, what it was given stays."""

from __future__ import annotations

import shlex
from pathlib import Path

from analysis.container_lines import in_image
from sweeper.engines import images
from tests.container_commands import BLOCKS, IMAGE, words_of

SERVE = "VLLM_ROCM_USE_AITER=1 vllm serve /models/llama --port 8000 --tensor-parallel-size 4"


def test_devices_folders_and_flags_stay_and_what_finds_the_container_again_goes(tmp_path: Path) -> None:
    words = words_of("docker", BLOCKS[1], tmp_path)
    ran = shlex.join([word.replace("/opt/sweeper", str(images._ROOT)) for word in words])
    assert shlex.split(in_image(SERVE, ran=ran, image=IMAGE)) == [
        *("docker", "run", "--rm", "--init", "--network", "host", "--ipc", "host", "--device", "/dev/kfd"),
        *("--device", "/dev/dri/renderD160", "--device", "/dev/dri/renderD168"),
        *("--device", "/dev/dri/renderD176", "--device", "/dev/dri/renderD184"),
        *("--group-add", "video", "--group-add", "109", "--cap-add", "SYS_PTRACE"),
        *("--security-opt", "seccomp=unconfined", "--volume", "/models/llama:/models/llama:ro"),
        # Access to weights is the user's, by name.
        *("--env", "HF_HOME", "--env", "HF_TOKEN", "--env", "VLLM_ROCM_USE_AITER=1"),
        *("--entrypoint", "vllm", IMAGE, "serve", "/models/llama", "--port", "8000"),
        *("--tensor-parallel-size", "4"),
    ]


def test_folder_of_the_hub_is_written_out_where_it_was_mounted() -> None:
    ran = (
        "podman run --volume /home/u/.cache/huggingface:/home/u/.cache/huggingface:rw "
        "--env HF_HOME --entrypoint python3 v:1 -m x"
    )
    assert in_image("vllm serve m", ran=ran, image="v:1") == (
        "podman run --volume /home/u/.cache/huggingface:/home/u/.cache/huggingface:rw "
        "--env HF_HOME=/home/u/.cache/huggingface --entrypoint vllm v:1 serve m"
    )


def test_image_of_apptainer_runs_the_program_after_it() -> None:
    ran = "apptainer exec --cleanenv --no-home --rocm --bind /m:/m:ro --pwd /t v.sif python3 -m x"
    assert in_image("vllm serve /m", ran=ran, image="v.sif") == (
        "apptainer exec --cleanenv --no-home --rocm --bind /m:/m:ro v.sif vllm serve /m"
    )
    assert in_image("vllm serve /m", ran="vllm serve /m", image="v.sif") == "vllm serve /m"

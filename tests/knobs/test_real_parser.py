"""The parser of the real vLLM reads what was meant."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from sweeper import knobs
from sweeper.records import Scalar

PARSE = """
import json, sys
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.entrypoints.launchers.cli_args import make_arg_parser

lines, answers = json.load(sys.stdin), []
for line in lines:
    parsed = vars(make_arg_parser(FlexibleArgumentParser()).parse_args(line["words"]))
    answers.append({"model_tag": parsed["model_tag"], **{n: parsed[n] for n in line["names"]}})
json.dump(answers, open(sys.argv[1], "w"), default=str)
"""


@pytest.mark.vllm
@pytest.mark.slow
def test_real_parser_reads_what_was_meant(vllm_python: Path | str, tmp_path: Path) -> None:
    # The CPU build is distributed under another name; vLLM asks for its own to find the platform.
    stub = tmp_path / "vllm-0.32.0+cpu.dist-info"
    stub.mkdir()
    (stub / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n", encoding="utf-8"
    )
    meant: list[dict[str, Scalar]] = [
        {"enable_chunked_prefill": True, "enable_prefix_caching": True, "async_scheduling": True},
        {"enable_chunked_prefill": False, "enable_prefix_caching": False, "async_scheduling": False},
        {"enforce_eager": True, "max_num_seqs": 1024, "max_num_batched_tokens": 65536, "block_size": 128},
        {"enforce_eager": False, "disable_log_stats": False, "use_tqdm_on_load": False},
        {"gpu_memory_utilization": 0.9, "kv_cache_dtype": "fp8", "dtype": "float16", "load_format": "dummy"},
        {"tensor_parallel_size": 2, "data_parallel_size": 2, "distributed_executor_backend": "mp"},
        {"max_model_len": 8192, "kv_cache_memory_bytes": 1 << 30, "cpu_offload_gb": 2, "stream_interval": 4},
        {"max_cudagraph_capture_size": 64, "performance_mode": "throughput", "scheduling_policy": "priority"},
    ]
    lines = [{"words": ["m", *knobs.command_line(a, release="0.32.0")], "names": list(a)} for a in meant]
    lists = {
        "cudagraph_capture_sizes": "1,2,4",
        "speculative_config": '{"method": "ngram", "num_speculative_tokens": 3}',
    }
    lines.append({"words": ["m", *knobs.command_line(lists, release="0.32.0")], "names": list(lists)})
    answer = tmp_path / "answer.json"
    # The environment is the caller's, so that the interpreter finds its libraries.
    # Torch leaves a folder for compiled code among the temporary files.
    of_test = {"PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)}
    environment = {**os.environ, **of_test, "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(
        [str(vllm_python), "-c", PARSE, str(answer)],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(answer.read_text(encoding="utf-8"))
    expected: list[dict[str, object]] = [{"model_tag": "m", **assignment} for assignment in meant]
    spoken = {"method": "ngram", "num_speculative_tokens": 3}
    expected.append({"model_tag": "m", "cudagraph_capture_sizes": [1, 2, 4], "speculative_config": spoken})
    assert answers == expected

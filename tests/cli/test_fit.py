"""The commands that work out what fits, and what a trial gets in each partition mode."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from sweeper import cli
from sweeper.models import tiny

ROOT = Path(__file__).resolve().parents[2]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = cli.main(arguments)
    told = capsys.readouterr()
    assert "Traceback" not in told.out + told.err
    return code, told.out + told.err


def row(told: str, mode: str, size: int) -> list[str]:
    (found,) = [line.split() for line in told.splitlines() if line.split()[:2] == [mode, str(size)]]
    return found


def test_fit_answers_how_many_cpx_partitions_70b_needs(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(
        capsys,
        "fit",
        "llama_3_1_70b_instruct",
        "max_model_len=8192",
        "--mode",
        "CPX",
        "--mean-tokens",
        "1000",
    )
    assert code == cli.OK
    assert (
        "CPX/NPS4: the least that fits is tensor_parallel_size 8, 8 of 64 devices, and then 9 sequences of "
        "8192 tokens at once." in told
    )
    # What does not fit keeps its arithmetic: 32.9 + 2.6 + 0.6 = 36.1 of 24 x 0.92
    assert row(told, "CPX/NPS4", 4)[2:8] == ["32.9", "2.6", "0.6", "36.1", "22.1", "no"]
    # blocks, sequences of 8192 (512 blocks), of 1000 (63 blocks), engines of 8 on 64 devices
    blocks, longest, mean, engines = map(int, row(told, "CPX/NPS4", 8)[8:])
    assert (longest, mean, engines) == (blocks // 512, blocks // 63, 8)


def test_fit_shows_every_mode_unless_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, "fit", "llama_2_13b_chat", "--release", "0.6.2")
    assert code == cli.OK
    assert [line.split(":")[0] for line in told.splitlines() if ": the least that fits" in line] == [
        "SPX/NPS1",
        "DPX/NPS2",
        "QPX/NPS4",
        "CPX/NPS4",
    ]
    assert row(told, "CPX/NPS4", 1)[7] == "no"
    assert row(told, "CPX/NPS4", 2)[7] == "yes"
    assert row(told, "SPX/NPS1", 1)[6] == "172.8"  # 192 x 0.9, as was the default then


def test_fit_of_model_that_is_too_large_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(
        capsys,
        "fit",
        "llama_3_1_405b_instruct",
        "max_model_len=8192",
        "--mode",
        "CPX",
        "--memory-mode",
        "NPS1",
    )
    assert code == cli.OK
    assert "CPX/NPS1: the least that fits is tensor_parallel_size 64" in told
    code, told = run(
        capsys,
        "fit",
        "llama_3_1_405b_instruct",
        "max_model_len=8192",
        "--device-memory",
        "24",
        "--devices",
        "16",
    )
    # 126 layers x (2 x 16384 x 128 x (8 heads + 1 copied KV head) + 3 x 16384 x 53248 / 16) = 25.37e9, and
    # embeddings and head of 0.26e9: 25.63e9 x 2 bytes
    assert "16 x 24 GiB: nothing fits; at tensor_parallel_size 16: weights 47.7 GiB + " in told
    assert "22.1 GiB available (24 GiB x gpu_memory_utilization 0.92)" in told


def test_fit_reads_models_own_file_and_asks_for_nothing_else(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, told = run(capsys, "fit", str(tiny.make(tmp_path)), "--device-memory", "1", "--devices", "2")
    assert code == cli.OK
    assert "2 x 1 GiB: the least that fits is tensor_parallel_size 1, 1 of 2 devices" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lama_2_13b_chat",), "model: there is no 'lama_2_13b_chat'; expected a name of conf/model"),
        (("tiny_llama", "max_model_len"), "'max_model_len' cannot be read; expected knob=value"),
        (("tiny_llama", "max_modellen=1"), "has no flag of this name. Did you mean 'max_model_len'?"),
        (("tiny_llama", "--mode", "CPX", "--memory-mode", "NPS2"), "expected NPS1 or NPS4 with CPX"),
        (("tiny_llama", "--mode", "CPXX"), "got 'CPXX'; expected one of SPX, DPX, QPX, CPX"),
        (("tiny_llama", "--mode", "CPX", "--device-memory", "80"), "is given beside a mode"),
        (("tiny_llama", "--device", "h100", "--mode", "CPX"), "has no"),
        (
            ("tiny_llama", "--device", "mi200"),
            "'mi200' is no device that is modelled; expected one of mi300x",
        ),
        (("tiny_llama", "--device", "h100", "--device-memory", "80"), "is given beside --device"),
        (("tiny_llama", "--device-memory", "-1"), "--device-memory: is -1; expected more than 0"),
        (("tiny_llama", "--mean-tokens", "0"), "--mean-tokens: is 0; expected more than 0"),
        (("tiny_llama", "tensor_parallel_size=3"), "expected a divisor of the model's 8 attention heads"),
    ],
)
def test_fit_names_what_is_wrong_with_command(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = run(capsys, "fit", *arguments)
    assert code == cli.MISTAKE
    assert message in told


@pytest.mark.parametrize(
    ("device", "mode", "memory_gib"),
    [("mi325x", "SPX", 256), ("mi325x", "CPX", 32), ("mi355x", "QPX", 72), ("mi300x", "DPX", 96)],
)
def test_fit_knows_memory_of_gpu_and_of_its_partitions(
    device: str, mode: str, memory_gib: float, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("fit", "llama_3_1_8b", "max_model_len=8192", "--device", device, "--mode", mode)
    code, told = run(capsys, *arguments)
    assert code == cli.OK
    (line,) = [
        words
        for words in map(str.split, told.splitlines())
        if words[:1] and words[0].startswith(mode + "/") and words[1] == "1"
    ]
    assert line[6] == f"{memory_gib * 0.92:.1f}"


def test_fit_takes_defaults_of_nvidia_for_its_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, "fit", "gpt_oss_120b", "--device", "h100")
    assert code == cli.OK
    assert row(told, "h100", 2)[6] == "73.3"  # 79.65 GiB x 0.92
    assert (
        "KV cache groups: 1 of 18 layers, a window of 128, 16 tokens a block; 1 of 18 layers, all tokens, "
        "16 tokens a block." in told
    )


def table(told: str) -> dict[str, str]:
    """Return the rest of each row of the table of sizes by its size."""
    lines = told.splitlines()
    head = next(line for line in lines if line.startswith("size "))
    start = head.index("devices")
    rows = itertools.takewhile(bool, lines[lines.index(head) + 1 :])
    return {row[:start].strip(): " ".join(row[start:].split()) for row in rows}


def test_table_of_sizes_says_what_is_legal_and_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, "fit", "qwen3_235b_a22b", "--mode", "SPX", "--sizes", "max_model_len=32768")
    assert code == cli.OK
    found = table(told)
    # 235B of 2 bytes are 438 GiB, so 4 GPUs hold them and 2 do not.
    assert found["TP 2"].startswith("2 yes no")
    assert "needs" in found["TP 2"]
    assert found["TP 4"].startswith("4 yes yes")
    # With data parallelism the replicas share out the experts, but each holds the attention.
    assert found["TP 2 x DP 4, EP"].startswith("8 yes yes")
    # A replica's tokens: its cache is its own.
    assert int(found["TP 8"].split()[5].replace(",", "")) > int(
        found["TP 4 x DP 2"].split()[5].replace(",", "")
    )


def test_table_of_sizes_names_what_cannot_be_shared_out(capsys: pytest.CaptureFixture[str]) -> None:
    _, told = run(capsys, "fit", "qwen2_7b_instruct", "--mode", "SPX", "--sizes")
    assert table(told)["TP 8"] == (
        "8 no no tensor_parallel_size = 8 cannot share out 28 attention heads, 4 KV heads and an MLP of "
        "18944; expected one of 1, 2, 4"
    )


def test_fit_tells_drafts_apart(capsys: pytest.CaptureFixture[str]) -> None:
    _, told = run(capsys, "fit", "deepseek_r1", "--mode", "SPX")
    assert "Not counted: 1 layer that predicts further tokens" in told


def test_page_about_partitions_is_what_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, "partitions")
    assert code == cli.OK
    page = (ROOT / "docs" / "partitions.md").read_text(encoding="utf-8")
    assert told == page, "write it again: python -m sweeper partitions > docs/partitions.md"


def test_page_says_block_gpus_numa_node_mask_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    _, told = run(capsys, "partitions")
    for mode, memory_mode in (("SPX", "NPS1"), ("DPX", "NPS2"), ("QPX", "NPS4"), ("CPX", "NPS4")):
        assert f"## {mode} with {memory_mode}\n" in told
        assert f"sudo amd-smi set --gpu all --compute-partition {mode}\n" in told
    # Four devices in DPX are two GPUs; the last eight of 64 are the last GPU, on the other socket.
    assert "| 4 | 4 | 12,13,14,15 | 6-7 | 1 |" in told
    assert "| 8 | 8 | 56,57,58,59,60,61,62,63 | 7 | 1 |" in told
    # Eight whole GPUs are the whole node, on both sockets.
    assert "| 8 | 1 | 0,1,2,3,4,5,6,7 | 0-7 | both |" in told


def test_modelled_node_is_shown_in_mode_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, "node", "--platform", "simulated", "--mode", "DPX", "--memory-mode", "NPS2")
    assert code == cli.OK
    assert "16 x modelled AMD Instinct MI300X (DPX/NPS2), 96 GiB each" in told
    assert "compute mode: DPX; memory mode: NPS2; " in told


def test_mode_is_not_taken_for_real_node(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = run(capsys, "node", "--platform", "cpu", "--mode", "CPX")
    assert code == cli.MISTAKE
    assert "the mode of a real node is read and never changed" in told

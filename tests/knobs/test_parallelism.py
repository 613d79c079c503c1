"""How many devices an assignment takes, and which sizes cannot share out a model."""

from __future__ import annotations

import pytest

from sweeper import knobs
from sweeper.errors import KnobError
from sweeper.prepare.model import named
from sweeper.records import ModelShape, Scalar
from tests.knobs.asking import only_refusal

LLAMA_70B = ModelShape(
    layers=80,
    hidden=8192,
    intermediate=28672,
    heads=64,
    kv_heads=8,
    head_dim=128,
    vocab=128256,
    max_positions=131072,
)


@pytest.mark.parametrize(
    ("assignment", "ranks", "replicas"),
    [
        ({}, 1, 1),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 3}, 6, 1),
        ({"tensor_parallel_size": 2, "prefill_context_parallel_size": 2}, 4, 1),
        # It uses the devices of tensor parallelism again, and experts only say where experts lie.
        ({"tensor_parallel_size": 8, "decode_context_parallel_size": 4}, 8, 1),
        ({"tensor_parallel_size": 2, "data_parallel_size": 4, "enable_expert_parallel": True}, 2, 4),
        ({"data_parallel_size": 8, "data_parallel_size_local": 8}, 1, 8),
        ({"tensor_parallel_size": 2, "instances": 3}, 2, 3),
        ({"num_shard": 8}, 8, 1),
    ],
)
def test_devices_are_those_of_replica_times_replicas(
    assignment: dict[str, Scalar], ranks: int, replicas: int
) -> None:
    assert knobs.ranks(assignment) == ranks
    assert knobs.replicas(assignment) == replicas
    assert knobs.devices(assignment) == ranks * replicas


def test_size_that_is_none_is_refused_with_its_key() -> None:
    for size in (0, -1, True, 2.0, "two"):
        with pytest.raises(KnobError, match=r"knobs\.prefill_context_parallel_size: is .*at least 1"):
            knobs.devices({"prefill_context_parallel_size": size})


def test_defaults_of_cpu_grow_with_world_size() -> None:
    # vLLM 0.32.0, EngineArgs.get_batch_defaults: 128 sequences for each of TP x PP x PCP = 4.
    both: dict[str, Scalar] = {"tensor_parallel_size": 2, "prefill_context_parallel_size": 2}
    assert knobs.defaults("0.32.0", accelerator="cpu", assignment=both)["max_num_seqs"] == 512


def test_replicas_on_further_nodes_are_refused() -> None:
    refusal = only_refusal({"data_parallel_size": 8, "data_parallel_size_local": 4}, "0.32.0")
    assert refusal.message == (
        "knob 'data_parallel_size_local' = 4: expected 8, all replicas of data_parallel_size: the others "
        "would be waited for on further nodes, and a trial is on one. Leave it out."
    )


def test_decode_context_shares_out_devices_of_tensor_parallelism() -> None:
    asked: dict[str, Scalar] = {"tensor_parallel_size": 8, "decode_context_parallel_size": 3}
    assert "expected one of 1, 2, 4, 8" in only_refusal(asked, "0.32.0", allow_unknown=True).reason
    assert not knobs.check({**asked, "decode_context_parallel_size": 4}, release="0.32.0")
    # Beside prefill context it spans nothing, that axis, or both: 1, 2 or 16.
    both: dict[str, Scalar] = {**asked, "prefill_context_parallel_size": 2}
    assert "takes 1, 2, 16 only" in only_refusal(both, "0.32.0").reason


def test_first_release_with_prefill_context_refuses_to_use_it() -> None:
    assert "every value but 1" in only_refusal({"prefill_context_parallel_size": 2}, "0.12.0").reason
    assert not knobs.check({"prefill_context_parallel_size": 2}, release="0.16.0")


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        (
            {"tensor_parallel_size": 3},
            "tensor_parallel_size = 3 cannot share out 64 attention heads, 8 KV heads and an MLP of 28672; "
            "expected one of 1, 2, 4, 8, 16, 32, 64",
        ),
        ({"num_shard": 5}, "num_shard = 5 cannot share out 64 attention heads"),
        ({"pipeline_parallel_size": 81}, "expected at most 80, the model's layers"),
        # 16 devices keep 2 copies of each of 8 KV heads; 8 devices keep one.
        (
            {"tensor_parallel_size": 16, "decode_context_parallel_size": 4},
            "keeps 2 of 8 KV heads; expected it to divide that number",
        ),
        (
            {"tensor_parallel_size": 8, "decode_context_parallel_size": 2},
            "keeps 1 of 8 KV heads",
        ),
    ],
)
def test_sizes_that_cannot_share_out_model_are_named_with_those_that_can(
    assignment: dict[str, Scalar], expected: str
) -> None:
    (reason,) = knobs.why_shape_forbids(assignment, LLAMA_70B)
    assert expected in reason


def test_kv_heads_are_copied_where_they_are_fewer_than_devices() -> None:
    for assignment in (
        {"tensor_parallel_size": 16},
        {"tensor_parallel_size": 64},
        {"pipeline_parallel_size": 80},
        {"data_parallel_size": 7},
        {"tensor_parallel_size": 16, "decode_context_parallel_size": 2},
    ):
        assert not list(knobs.why_shape_forbids(assignment, LLAMA_70B)), assignment


@pytest.mark.parametrize(
    ("preset", "assignment", "is_refused"),
    [
        ("qwen3_235b_a22b_fp8", {"tensor_parallel_size": 4}, False),
        ("qwen3_235b_a22b_fp8", {"tensor_parallel_size": 8}, True),
        ("qwen3_235b_a22b_fp8", {"tensor_parallel_size": 8, "enable_expert_parallel": True}, False),
        ("qwen3_235b_a22b_fp8", {"tensor_parallel_size": 1, "data_parallel_size": 8}, True),
        ("qwen3_235b_a22b", {"tensor_parallel_size": 4, "data_parallel_size": 2}, False),
        ("deepseek_r1", {"tensor_parallel_size": 8}, False),
    ],
)
def test_slices_of_experts_are_whole_blocks_of_fp8_weights(
    preset: str, assignment: dict[str, int], is_refused: bool
) -> None:
    """1536 rows of an expert in blocks of 128 are 12 blocks: four devices share them, eight cannot."""
    built = named(preset).built
    assert built is not None
    said = [line for line in knobs.why_shape_forbids(assignment, built) if "fp8 blocks" in line]
    assert bool(said) is is_refused
    if is_refused:
        assert (
            "slices experts of 1536" in said[0]
            and "expected one of 1, 2, 3, 4, 6, 12, or enable_expert" in said[0]
        )

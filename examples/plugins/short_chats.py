"""A dataset of short prompts, by the lengths that it has."""

import numpy as np

from sweeper.kinds import DatasetKind

SHORT_CHATS = DatasetKind(
    name="short_chats",
    has_own_lengths=True,
    arguments="short_chats:arguments",
    draw="short_chats:draw",
    mean_input_len=24.0,
    mean_output_len=48.0,
    longest_output_len=64.0,
    most_input_len=32,
    most_total_len=96,
)


def arguments(point):
    """Return the words for vllm bench serve."""
    return ["--dataset-name", "hf", "--dataset-path", "example/short-chats"]


def draw(point, rng):
    """Return tokens in, tokens out, and of which request each sends the prompt."""
    requests = point.num_prompts
    tokens_in, tokens_out = (rng.integers(low, high, requests) for low, high in ((16, 33), (32, 65)))
    return tokens_in, tokens_out, np.arange(requests)

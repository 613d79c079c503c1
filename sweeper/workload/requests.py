"""What a load point sends: when each request arrives, and how many tokens it has.

Everything follows from the load point and its seed. Lengths and arrivals have generators of their own, so
the same seed gives the same requests at every rate, and the arrivals of two rates are the same draw
stretched: a difference between load points is never a difference between samples.

Left out: the words. A model of a server needs lengths only, and a real client reads its own dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sweeper.errors import ConfigError, nearest
from sweeper.kinds import DATASETS, opened
from sweeper.records import LoadPoint
from sweeper.workload import conversations
from sweeper.workload.conversations import Turns
from sweeper.workload.drawing import (
    SHAREGPT_GIVEN_TOKENS,
    Floats,
    Ints,
    arrivals_s,
    ended_early,
    ramped_s,
    random_lengths,
    sharegpt_lengths,
)

Split = Callable[[LoadPoint, Ints, np.random.Generator], tuple["Prompt", ...]]
Draw = Callable[[LoadPoint, np.random.Generator], tuple[Ints, Ints, Ints]]

SHAREGPT_REPEAT_FRAC = 0.009
"""Part of the requests that send an earlier request's prompt again. Stands for the prompts of ShareGPT that
share a beginning: "Serving LLMs on AMD MI300X" (Case 3) saw 0.9 % prefix hits on a fresh server."""

_LENGTHS, _ARRIVALS, _PIECES = 0, 1, 2

Prompt = tuple[tuple[int, int], ...]
"""A prompt in pieces: the number of each, and the tokens up to its end."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The requests of one client run, in order of arrival.

    Attributes:
        arrival_s: When each is sent, seconds from the first, ascending, shape (requests,).
        input_tokens: Prompt lengths, same shape, at least 1.
        output_tokens: Tokens to generate, same shape, at least 1.
        prompt_ids: Equal where prompts are equal, also between workloads; same shape.
        pieces: Of each prompt, where some begin alike without being equal: a number for each piece, equal
            where everything up to its end is equal, and the tokens up to there. Empty where prompts are equal
            as a whole or not at all.
        turns: How requests are turns of conversations; None where each is one of its own. With them, arrivals
            are not each request's own: the k-th that is sent is not sent before the k-th of them.
    """

    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    prompt_ids: Ints
    pieces: tuple[Prompt, ...] = ()
    turns: Turns | None = None

    def __post_init__(self) -> None:
        shapes = {
            array.shape for array in (self.arrival_s, self.input_tokens, self.output_tokens, self.prompt_ids)
        }
        if len(shapes) != 1 or self.arrival_s.ndim != 1:
            raise ConfigError(
                f"workload: got arrays of shapes {sorted(shapes)}; expected one shape (requests,) for all. "
                "Give every request each of its numbers."
            )
        if self.requests and (np.any(np.diff(self.arrival_s) < 0) or self.arrival_s[0] < 0):
            raise ConfigError(
                "workload: got arrivals that are not ascending from 0; expected the order of arrival. Sort."
            )
        if self.requests and min(self.input_tokens.min(), self.output_tokens.min()) < 1:
            raise ConfigError(
                "workload: got a request without tokens; expected at least 1 in and 1 out. Drop it."
            )

    @property
    def requests(self) -> int:
        """How many there are."""
        return len(self.arrival_s)

    def share(self, *, index: int, parts: int) -> Ints:
        """Return which requests go to one of several replicas behind a round-robin balancer.

        The turns of a conversation stay with one, as behind a balancer that keeps sessions.
        """
        if self.turns is None:
            return np.arange(index, self.requests, parts)
        return np.flatnonzero((np.cumsum(~self.turns.follows) - 1) % parts == index)

    def part(self, *, index: int, parts: int) -> Workload:
        """Return the share of one of several replicas."""
        share = self.share(index=index, parts=parts)
        return Workload(
            arrival_s=self._arrivals_of(share),
            input_tokens=self.input_tokens[share],
            output_tokens=self.output_tokens[share],
            prompt_ids=self.prompt_ids[share],
            pieces=tuple(self.pieces[place] for place in share) if self.pieces else (),
            turns=None if self.turns is None else self.turns.at(share),
        )

    def _arrivals_of(self, share: Ints) -> Floats:
        if self.turns is None:
            return self.arrival_s[share]
        if self.turns.earliest_s.any():
            return np.sort(self.turns.earliest_s[share])
        # Of a rate, a replica gets as many arrivals as it has requests, evenly.
        return self.arrival_s[np.arange(len(share)) * self.requests // max(len(share), 1)]

    def goes_on(self, index: int) -> bool:
        """Whether another turn of its conversation follows a request."""
        return self.turns is not None and index + 1 < self.requests and bool(self.turns.follows[index + 1])

    def prompt(self, index: int) -> Prompt:
        """Return a request's prompt in pieces; a single one unless some prompts begin alike."""
        if self.pieces:
            return self.pieces[index]
        return ((int(self.prompt_ids[index]), int(self.input_tokens[index])),)

    def answered(self, index: int) -> Prompt:
        """Return a request's prompt and answer in pieces, as far as the turn after it has them."""
        return self.pieces[index + 1][: len(self.pieces[index]) + 1]


def make_workload(point: LoadPoint, *, seed: int) -> Workload:
    """Draw the requests of a load point.

    Args:
        point: What is sent; its own ``client_seed`` is not looked at.
        seed: Seed of lengths, arrivals and the identity of prompts.

    Returns:
        ``point.num_prompts`` requests.

    Raises:
        ConfigError: The dataset is unknown, or the load point lacks a length or has an impossible one.
    """
    _check(point)
    if DATASETS[point.dataset].conversations is not None:
        return _of_conversations(point, seed=seed)
    draw: Draw = opened(_place(point))
    input_tokens, output_tokens, originals = draw(point, np.random.default_rng([seed, _LENGTHS]))
    offset = _content_offset(point, seed)
    return Workload(
        arrival_s=_arrivals_s(point, np.random.default_rng([seed, _ARRIVALS])),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        prompt_ids=originals + offset,
        pieces=_pieces(point, input_tokens, seed=seed, offset=offset),
    )


def _of_conversations(point: LoadPoint, *, seed: int) -> Workload:
    """Return the turns of a load point's conversations, one conversation after the other."""
    said, offset = conversations.of(point, seed=seed), _content_offset(point, seed)
    input_tokens, output_tokens = conversations.lengths_of(said)
    return Workload(
        arrival_s=_arrivals_s(point, np.random.default_rng([seed, _ARRIVALS])),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        prompt_ids=np.arange(point.num_prompts) + offset,
        pieces=_moved(conversations.pieces_of(said), offset=offset),
        turns=conversations.turns_of(said),
    )


def _pieces(point: LoadPoint, input_tokens: Ints, *, seed: int, offset: int) -> tuple[Prompt, ...]:
    """Return which prompts of a load point begin alike; nothing where none do."""
    place = DATASETS[point.dataset].pieces
    if place is None:
        return ()
    split: Split = opened(place)
    prompts = split(point, input_tokens, np.random.default_rng([seed, _PIECES]))
    return _moved(prompts, offset=offset)


def _moved(prompts: tuple[Prompt, ...], *, offset: int) -> tuple[Prompt, ...]:
    """Return prompts whose pieces have the numbers of a load point's contents."""
    return tuple(tuple((number + offset, end) for number, end in prompt) for prompt in prompts)


def _place(point: LoadPoint) -> str:
    """Return where the lengths of a dataset are drawn.

    Raises:
        ConfigError: They are not modelled.
    """
    place = DATASETS[point.dataset].draw
    if place is None:
        raise ConfigError(
            f"workload.dataset: is {point.dataset}, whose lengths are not known before it is sent; expected "
            "on the simulated platform a dataset whose lengths are. Measure it, or use dataset custom or "
            "random."
        )
    return place


def _arrivals_s(point: LoadPoint, rng: np.random.Generator) -> Floats:
    """Return when each request of a load point is sent, as ``arrivals_s``."""
    times = DATASETS[point.dataset].times
    if times is not None:
        own: Floats = opened(times)(point)
        return own
    if point.ramp is not None:
        return ramped_s(requests=point.num_prompts, ramp=point.ramp, burstiness=point.burstiness, rng=rng)
    return arrivals_s(
        requests=point.num_prompts,
        rate_per_s=point.request_rate_per_s,
        burstiness=point.burstiness,
        rng=rng,
    )


def draw_random(point: LoadPoint, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Draw lengths around their means; all prompts differ."""
    own = np.arange(point.num_prompts, dtype=np.int64)
    assert point.input_len is not None and point.output_len is not None
    lengths = [
        random_lengths(requests=point.num_prompts, mean_tokens=mean, range_ratio=point.range_ratio, rng=rng)
        for mean in (point.input_len, point.output_len)
    ]
    return lengths[0] + int(point.option("prefix_len") or 0), lengths[1], own


def pieces_after_one_prefix(
    point: LoadPoint, input_tokens: Ints, rng: np.random.Generator
) -> tuple[Prompt, ...]:
    """Return prompts that all begin with the same ``prefix_len`` tokens; nothing without such."""
    shared = int(point.option("prefix_len") or 0)
    if not shared:
        return ()
    return tuple(((0, shared), (1 + place, int(end))) for place, end in enumerate(input_tokens))


def pieces_after_prefixes(
    point: LoadPoint, input_tokens: Ints, rng: np.random.Generator
) -> tuple[Prompt, ...]:
    """Return prompts of which equally many begin with each of ``num_prefixes`` prefixes, in random order."""
    options = dict(point.options)
    prefixes, shared = int(options["num_prefixes"]), int(options["prefix_len"])
    which = rng.permutation(np.arange(point.num_prompts) % prefixes)
    return tuple(
        ((int(which[place]), shared), (prefixes + place, int(end))) for place, end in enumerate(input_tokens)
    )


def draw_sharegpt(point: LoadPoint, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Draw ShareGPT's lengths, and for each request the index of the one whose prompt it sends."""
    own = np.arange(point.num_prompts, dtype=np.int64)
    prompts, answers = sharegpt_lengths(requests=point.num_prompts, rng=rng)
    given = None if point.ignore_eos else SHAREGPT_GIVEN_TOKENS
    if point.output_len is not None:
        answers, given = np.full(point.num_prompts, point.output_len, np.int64), None
    repeats = rng.random(point.num_prompts) < SHAREGPT_REPEAT_FRAC
    repeats[:1] = False
    earlier = (rng.random(point.num_prompts) * own).astype(np.int64)
    originals = np.where(repeats, earlier, own)
    # An original may be a repeat itself; its own original then lies further back.
    while np.any(originals[originals] != originals):
        originals = originals[originals]
    told = point.option("mean_output_len")
    mean_tokens = given if told is None else float(told)
    if mean_tokens is not None:
        answers = ended_early(answers, mean_tokens=mean_tokens, rng=rng)
    return prompts[originals], answers, originals


def draw_prefix_repetition(point: LoadPoint, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Return prompts of a prefix and a suffix each, in random order; which prefix is drawn with them."""
    options = dict(point.options)
    whole = np.full(point.num_prompts, int(options["prefix_len"]) + int(options["suffix_len"]), np.int64)
    assert point.output_len is not None
    return whole, np.full(point.num_prompts, point.output_len, np.int64), np.arange(point.num_prompts)


def _content_offset(point: LoadPoint, seed: int) -> int:
    """Return prompts of different seeds, datasets or lengths different identities; rates do not matter."""
    text = f"{seed}/{point.dataset}/{point.input_len}/{point.range_ratio}"
    if point.options:
        text += f"/{point.dataset_options}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") << 24


def _check(point: LoadPoint) -> None:
    kind = DATASETS.get(point.dataset)
    if kind is None or not kind.needs_server:
        known = [name for name in DATASETS if DATASETS[name].needs_server]
        raise ConfigError(
            f"load point: dataset is '{point.dataset}'; expected one of {', '.join(known)}. "
            f"Choose one of them.{nearest(point.dataset, known)}"
        )
    if point.num_prompts < 0:
        raise ConfigError(f"load point: num_prompts is {point.num_prompts}; expected 0 or more. Raise it.")
    if not 0 <= point.range_ratio <= 1:
        raise ConfigError(f"load point: range_ratio is {point.range_ratio:g}; expected 0 to 1. Change it.")
    if not kind.has_own_lengths and (point.input_len is None or point.output_len is None):
        raise ConfigError(
            f"load point: dataset {point.dataset} with input_len {point.input_len} and output_len "
            f"{point.output_len}; expected both in tokens. Give them."
        )
    for name, tokens in (("input_len", point.input_len), ("output_len", point.output_len)):
        if tokens is not None and tokens < 1:
            raise ConfigError(f"load point: {name} is {tokens}; expected at least 1 token. Raise it.")

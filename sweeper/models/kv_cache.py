"""The KV cache of one device as vLLM lays it out: groups of layers, blocks that they share, tokens that fit.

Layers that keep the same of a token (all of it, a window, a chunk, a state) form a bucket. Buckets of several
kinds are cut into groups of equally many layers, all of which draw blocks from one pool: a block holds a page
of each layer of one group, and a sequence takes its own number of blocks from each group. So a window saves
less than its ratio says: its blocks are as large as others, one more than it fills, and the tokens of the
steps in flight are kept beside it.

Exact for vLLM 0.32.0 on devices and CPUs whose attention keeps a layer's pages together (CPU, ROCm, and
FlashAttention), with one pipeline stage and without speculative decoding. Earlier releases are estimated:
those with the hybrid manager by the same groups, those before it with every layer keeping every token.

Source:
    vLLM 0.32.0: v1/core/kv_cache_utils.py (get_kv_cache_groups, unify_kv_cache_spec_page_size,
    _get_kv_cache_groups_uniform_page_size, _get_kv_cache_bytes_per_block, get_kv_cache_capacity,
    get_kv_cache_configs), v1/kv_cache_interface.py (what a sequence needs at most),
    platforms/interface.py (_align_hybrid_block_size), config/vllm.py (max_in_flight_tokens, when the hybrid
    manager is off), model_executor/layers/mamba/mamba_utils.py (states).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, lru_cache

from sweeper.errors import PlacementError
from sweeper.knobs import Accelerator
from sweeper.knobs.release_order import is_between
from sweeper.models.number_types import bytes_of
from sweeper.models.shares import Share, stage_sizes, stages_of, whole
from sweeper.records import Assignment, ModelShape, Scalar
from sweeper.records.architecture import (
    AnyAttention,
    Architecture,
    Attention,
    DeltaAttention,
    LatentAttention,
    Layer,
    Mamba,
)

_FIRST_HYBRID_RELEASE = "0.9.1"
"""The first release with ``disable_hybrid_kv_cache_manager``. Source: knobs/data/vllm_flags.csv."""

_READ_RELEASE = "0.32.0"
"""The release whose source was read. Until 0.19 the log divided the blocks evenly among the groups (vLLM
issue 40691); which release since then began to count the steps under way, and sequences of the longest
length, is not known here."""

_CHUNKS_ALLOWED = "VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE"
_OF_LAYOUT = (
    *("block_size", "enable_prefix_caching", "disable_hybrid_kv_cache_manager", _CHUNKS_ALLOWED),
    *("mamba_cache_dtype", "mamba_ssm_cache_dtype"),
)
"""Knobs, beside the parallel sizes, by which the layers' pages differ."""

_KERNEL_TOKENS: Mapping[Accelerator, int] = {"rocm": 16, "cuda": 16, "cpu": 32}
"""Blocks are whole multiples of this. Source: get_supported_kernel_block_sizes of the default backends."""

_CPU_BLOCK_TOKENS = 128
_CPU_LATENT_BLOCK_TOKENS = 16
_LATENT_HYBRID_TOKENS = 128
_WIDENED = 1.5
"""Buckets that differ by less than this factor form groups as large as the larger one."""


class Keeps(StrEnum):
    """What a layer keeps of a sequence."""

    ALL = "all tokens"
    WINDOW = "a window"
    CHUNK = "a chunk"
    STATE = "a state"


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a layer keeps in one block.

    Attributes:
        keeps: What it keeps.
        tokens: Tokens in a block.
        bytes: Bytes of a block in this layer, padding included.
        window: Tokens in sight, of a window or chunk.
        form: What tells pages of equal size apart: heads and their dimension.
        states: States of a sequence that are kept at once, each in a block of its own.
    """

    keeps: Keeps
    tokens: int
    bytes: int
    window: int = 0
    form: tuple[int, ...] = ()
    states: int = 0


@dataclass(frozen=True, kw_only=True)
class Group:
    """Layers that share a table of blocks.

    Attributes:
        page: What each of them keeps.
        layers: Their places in the model, from 0.
        bytes: Bytes of a block over these layers, where they differ; 0 where all are as ``page``.
    """

    page: Page
    layers: tuple[int, ...]
    bytes: int = 0

    @property
    def words(self) -> str:
        """The group in words: ``10 layers, a window of 1024, 16 tokens a block``."""
        window = f" of {self.page.window}" if self.page.window else ""
        tokens = "" if self.page.keeps is Keeps.STATE else f", {self.page.tokens} tokens a block"
        return f"{len(self.layers)} layers, {self.page.keeps}{window}{tokens}"


@dataclass(frozen=True, kw_only=True)
class KvCache:
    """How the cache of one device is laid out.

    Attributes:
        groups: Groups of layers; a sequence takes blocks for each.
        block_bytes: Bytes of one block, on the stage of the pipeline where it is largest.
        flight_tokens: Tokens of the steps that may be under way at once.
        spare_blocks: Blocks that are never given to a sequence.
        is_counted_by_length: The log's tokens are sequences of the longest length times that length.
    """

    groups: tuple[Group, ...]
    block_bytes: int
    flight_tokens: int = 0
    spare_blocks: int = 0
    is_counted_by_length: bool = True

    @property
    def is_mixed(self) -> bool:
        """Whether a sequence takes anything but one block for every so many of its tokens."""
        return len(self.groups) > 1 or any(group.page.keeps is not Keeps.ALL for group in self.groups)

    def blocks_of(self, tokens: int) -> int:
        """Return the blocks that a sequence of this length takes at most, over all groups."""
        return sum(self._blocks(group.page, tokens) for group in self.groups)

    def logged_tokens(self, blocks: int, *, max_model_len: int) -> int:
        """Return the tokens that vLLM's log calls the size of the cache.

        Args:
            blocks: Blocks of the pool.
            max_model_len: Tokens of the longest sequence, from which the log works it out.
        """
        if not self.groups:
            return 0
        if self.is_counted_by_length:
            return int(blocks / self.blocks_of(max_model_len) * max_model_len)
        return blocks // len(self.groups) * min(group.page.tokens for group in self.groups)

    def _blocks(self, page: Page, tokens: int) -> int:
        match page.keeps:
            case Keeps.ALL:
                return math.ceil(tokens / page.tokens)
            case Keeps.STATE:
                return page.states
            case Keeps.CHUNK:
                return math.ceil(min(page.window + self.flight_tokens, tokens) / page.tokens)
            case Keeps.WINDOW:
                held = min(page.window - 1 + self.flight_tokens, tokens)
                # A window need not begin where a block does.
                return math.ceil(held / page.tokens) + 1


def kv_cache(
    built: Architecture,
    said: Assignment,
    *,
    kv_dtype: str,
    dtype: str,
    release: str,
    accelerator: Accelerator = "rocm",
) -> KvCache:
    """Lay out the KV cache of one device.

    Args:
        built: What the model is built of.
        said: Knobs, the release's defaults among them.
        kv_dtype: Type of the cache.
        dtype: Type that is computed in; states are kept in it where nothing else is said.
        release: Release of vLLM.
        accelerator: What it runs on.

    Raises:
        PlacementError: A knob is no whole number, or states are asked for without the hybrid manager.
    """
    share = Share.of(said)
    is_known = is_between(release, _READ_RELEASE, None)
    groups, block_bytes = _laid_out(
        built,
        # With their types: of equal values 1 is a number of tokens, and true is none.
        tuple((knob, type(said[knob]), said[knob]) for knob in _OF_LAYOUT if knob in said),
        share,
        kv_dtype=kv_dtype,
        dtype=dtype,
        release=release,
        accelerator=accelerator,
    )
    return KvCache(
        groups=groups,
        block_bytes=block_bytes,
        flight_tokens=_flight_tokens(said, share, release=release),
        spare_blocks=1 if is_known else 0,
        is_counted_by_length=is_known,
    )


@lru_cache(maxsize=1024)
def _laid_out(
    built: Architecture,
    given: tuple[tuple[str, type, Scalar], ...],
    share: Share,
    *,
    kv_dtype: str,
    dtype: str,
    release: str,
    accelerator: Accelerator,
) -> tuple[tuple[Group, ...], int]:
    """Return the groups of layers and the bytes of a block; thousands of settings have few of them.

    Args:
        given: Those of ``_OF_LAYOUT`` that are said, each with its type and value: nothing else is looked at.
    """
    said = {knob: value for knob, _, value in given}
    is_known = is_between(release, _READ_RELEASE, None)
    pages = pages_of(
        built,
        said,
        share,
        kv_dtype=kv_dtype,
        dtype=dtype,
        accelerator=accelerator,
        # With prefix caching, states are kept at the ends of blocks beside the one that grows.
        is_aligned=is_known and bool(said.get("enable_prefix_caching", False)),
    )
    if not is_between(release, _FIRST_HYBRID_RELEASE, None):
        pages = [(place, _kept_whole(page)) for place, page in pages]
    elif _is_manager_off(built, said, release=release):
        pages = _without_manager(pages)
    groups = _grouped(pages)
    return groups, _block_bytes(groups, stage_sizes(built, share.pipeline))


def default_block_tokens(built: Architecture, accelerator: Accelerator) -> int:
    """Return the tokens of a block where nothing is said.

    Source:
        vLLM 0.32.0, CacheConfig.DEFAULT_BLOCK_SIZE; platforms/cpu.py, check_and_update_config.
    """
    if accelerator != "cpu":
        return 16
    has_latent = any(isinstance(layer.attention, LatentAttention) for layer, _ in built.runs)
    return _CPU_LATENT_BLOCK_TOKENS if has_latent else _CPU_BLOCK_TOKENS


def kv_bytes_per_token(
    model: ModelShape | Architecture,
    *,
    dtype: str = "bfloat16",
    tensor_parallel_size: int = 1,
    pipeline_parallel_size: int = 1,
) -> int:
    """Bytes of KV cache that one token takes on one device, over the layers that see the whole sequence.

    Grouped-query attention keeps a key and a value for each of its KV heads. Where there are fewer KV heads
    than devices, each device keeps a copy of one, and more devices save nothing. Latent attention keeps one
    vector for all heads, on every device.

    Source:
        AMD, "Steps to Run a vLLM Workload", 2 x layers x hidden x bytes, which is this for models whose KV
        heads are as many as their heads. Copies: vLLM, ModelConfig.get_num_kv_heads.
    """
    built = model.architecture if isinstance(model, ModelShape) else model
    return max(
        sum(n * values_here(layer.attention, tensor_parallel_size) for layer, n in stage if _sees_all(layer))
        for stage in stages_of(built, pipeline_parallel_size)
    ) * bytes_of(dtype)


def _sees_all(layer: Layer) -> bool:
    return layer.attention.window is None


def values_here(attention: AnyAttention, tensor: int) -> int:
    """Return the numbers that the KV cache keeps of a token on one of so many devices."""
    if isinstance(attention, Attention):
        return 2 * max(1, attention.kv_heads // tensor) * attention.head_dim
    return attention.cached_values


def state_bytes(attention: AnyAttention, *, tensor: int, dtype: str, said: Assignment) -> int:
    """Return the bytes of a layer's state for one sequence on one of so many devices.

    The convolution's last inputs are kept in the type that is computed in, unless ``mamba_cache_dtype`` says
    otherwise; the recurrent state in ``mamba_ssm_cache_dtype``, which a model's config may say as well.
    """
    if not attention.state_values:
        return 0
    asked = str(said.get("mamba_cache_dtype", "auto"))
    around = dtype if asked == "auto" else asked
    recurrent = str(said.get("mamba_ssm_cache_dtype", "auto"))
    if recurrent == "auto":
        own = attention.state_dtype if isinstance(attention, DeltaAttention | Mamba) else None
        recurrent = own or around
    conv, state = attention.state_parts(tensor)
    return conv * bytes_of(around) + state * bytes_of(recurrent)


Placed = Sequence[tuple[int, Page]]
"""Pages in the order of the layers, each with its layer's place; a layer may have none, or two."""


def pages_of(
    built: Architecture,
    said: Assignment,
    share: Share,
    *,
    kv_dtype: str,
    dtype: str,
    accelerator: Accelerator,
    is_aligned: bool = False,
) -> Placed:
    """Return what the layers keep on one device, with the hybrid manager on."""
    width, tensor = bytes_of(kv_dtype), share.tensor
    distinct = dict.fromkeys(mixer for layer, _ in built.runs for mixer in layer.mixers)
    states = {one: state_bytes(one, tensor=tensor, dtype=dtype, said=said) for one in distinct}
    tokens = whole(said, "block_size", default_block_tokens(built, accelerator))
    largest = max(states.values(), default=0)
    token_bytes = [values_here(one, tensor) * width for one in distinct if one.cached_values]
    if largest and token_bytes:
        tokens = _aligned_tokens(built, tokens, state=largest, token_bytes=max(token_bytes), on=accelerator)
    page_of = {
        one: _page(
            one,
            tokens=tokens,
            token_bytes=values_here(one, tensor) * width,
            state=max(largest, tokens * max(token_bytes, default=0)) if states[one] else 0,
            tensor=tensor,
            states=_states_at_once(one, is_aligned=is_aligned),
        )
        for one in distinct
    }
    mixers = [(place, mixer) for place, layer in enumerate(built.layers) for mixer in layer.mixers]
    return [(place, page) for place, mixer in mixers if (page := page_of[mixer]) is not None]


def _aligned_tokens(
    built: Architecture, tokens: int, *, state: int, token_bytes: int, on: Accelerator
) -> int:
    """Return the tokens of a block that is at least as large as a state, beside which states are padded."""
    kernel = _KERNEL_TOKENS[on]
    has_latent = any(isinstance(layer.attention, LatentAttention) for layer, _ in built.runs)
    step = max(kernel, tokens, _LATENT_HYBRID_TOKENS if has_latent else 0)
    least = step * math.ceil(state / (step * token_bytes))
    return max(tokens, kernel * math.ceil(least / kernel))


def _states_at_once(attention: AnyAttention, *, is_aligned: bool) -> int:
    """Return how many states of a sequence are kept.

    Source:
        vLLM 0.32.0, MambaSpec.max_memory_usage_bytes; mamba_mixer2.py keeps one more where a prompt is cut.
    """
    if not is_aligned:
        return 1
    return 3 if isinstance(attention, Mamba) and attention.heads is not None else 2


def _page(
    attention: AnyAttention, *, tokens: int, token_bytes: int, state: int, tensor: int, states: int
) -> Page | None:
    if state:
        return Page(keeps=Keeps.STATE, tokens=tokens, bytes=state, states=states)
    if not token_bytes:
        return None
    window = attention.window
    keeps = Keeps.ALL if window is None else Keeps.WINDOW
    form: tuple[int, ...] = (attention.cached_values,)
    if isinstance(attention, Attention):
        form = (max(1, attention.kv_heads // tensor), attention.head_dim)
        keeps = Keeps.CHUNK if attention.is_chunked and window is not None else keeps
    return Page(keeps=keeps, tokens=tokens, bytes=tokens * token_bytes, window=window or 0, form=form)


@cache
def _kept_whole(page: Page) -> Page:
    """Return the page of a layer that keeps every token; a state stays what it is."""
    return page if page.keeps is Keeps.STATE else replace(page, keeps=Keeps.ALL, window=0)


def _is_manager_off(built: Architecture, said: Assignment, *, release: str) -> bool:
    """Whether every layer keeps every token: as asked, or because chunks are not managed by default.

    Source:
        vLLM 0.32.0, envs.py, where chunks are managed by default; before it they are taken not to be.
    """
    has_chunks = any(
        isinstance(one.attention, Attention) and one.attention.is_chunked for one, _ in built.runs
    )
    unsaid = "1" if is_between(release, _READ_RELEASE, None) else "0"
    is_allowed = str(said.get(_CHUNKS_ALLOWED, unsaid)) == "1"
    return bool(said.get("disable_hybrid_kv_cache_manager", False)) or (has_chunks and not is_allowed)


def _without_manager(pages: Placed) -> Placed:
    """Return pages of layers that all keep every token, where some do.

    Raises:
        PlacementError: Some keep states beside the cache of others.
    """
    kinds = {page.keeps for _, page in pages}
    if len(kinds) > 1 and Keeps.STATE in kinds:
        raise PlacementError(
            "knobs.disable_hybrid_kv_cache_manager: is true for a model that keeps states beside a KV cache; "
            "expected false: vLLM refuses it. Leave it out."
        )
    if Keeps.ALL not in kinds:
        return pages
    return [(place, _kept_whole(page)) for place, page in pages]


def _grouped(pages: Placed) -> tuple[Group, ...]:
    """Share layers out to groups: one where all are alike, else groups of equally many of each bucket."""
    distinct = list(dict.fromkeys(page for _, page in pages))
    if not distinct:
        return ()
    if len({(page.keeps, page.window, page.tokens) for page in distinct}) == 1:
        total = sum(page.bytes for _, page in pages) if len(distinct) > 1 else 0
        return (Group(page=distinct[0], layers=tuple(place for place, _ in pages), bytes=total),)
    largest = max(page.bytes for page in distinct)
    buckets: dict[Page, list[int]] = {}
    for place, page in pages:
        buckets.setdefault(_widened(page, largest), []).append(place)
    counts = [len(places) for places in buckets.values()]
    size = max(counts) if max(counts) < min(counts) * _WIDENED else min(counts)
    found = []
    for page, places in buckets.items():
        groups = math.ceil(len(places) / size)
        found += [Group(page=page, layers=tuple(places[start::groups])) for start in range(groups)]
    return tuple(found)


def _widened(page: Page, largest: int) -> Page:
    """Return a page as large as the largest: with more tokens where that comes out even, else padded."""
    if page.bytes == largest:
        return page
    more, rest = divmod(largest, page.bytes)
    if page.keeps is Keeps.STATE or rest:
        return replace(page, bytes=largest)
    return replace(page, bytes=largest, tokens=page.tokens * more)


def _block_bytes(groups: Sequence[Group], stages: Sequence[int]) -> int:
    """Return the bytes of a block on the stage where it is largest: those of its largest group."""
    if len(stages) == 1:
        return max((group.bytes or len(group.layers) * group.page.bytes for group in groups), default=0)
    start, found = 0, 0
    for count in stages:
        here = range(start, start + count)
        for group in groups:
            layers = sum(place in here for place in group.layers)
            share = group.bytes * layers // len(group.layers) if group.bytes else layers * group.page.bytes
            found = max(found, share)
        start += count
    return found


def _flight_tokens(said: Assignment, share: Share, *, release: str) -> int:
    """Return the tokens of all steps under way: of one, until asynchronous ones were counted."""
    batches = 1
    if is_between(release, _READ_RELEASE, None):
        batches = share.pipeline + (1 if bool(said.get("async_scheduling", False)) else 0)
    return batches * whole(said, "max_num_batched_tokens", 2048)

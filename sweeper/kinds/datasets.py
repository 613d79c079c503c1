"""The datasets: what a load point can send, and what each client has to be given for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sweeper.kinds.registry import Registry


@dataclass(frozen=True, kw_only=True)
class DatasetOption:
    """Something that a dataset takes beside lengths (``workload.options``).

    Attributes:
        flag: Of ``vllm bench serve``; None where the dataset's own arguments say it.
        type: ``int``, ``float``, ``str`` or ``bool``; a bool is a flag without a value, for true.
        low: Smallest number.
        is_required: Nothing is sent without it.
        meaning: In words, with its unit.
    """

    flag: str | None
    type: type[int] | type[float] | type[str] | type[bool] = int
    low: float = 0
    is_required: bool = False
    meaning: str


@dataclass(frozen=True, kw_only=True)
class DatasetKind:
    """What is known of a dataset without reading it.

    Where code is named, it is as ``module:name``. Lengths are in tokens.

    Attributes:
        name: Value of ``workload.dataset``.
        bench_name: What ``--dataset-name`` calls it, where that is another name.
        needs_server: It is sent to a server; otherwise it is a benchmark with the engine inside it.
        reads_file: It is read from ``workload.dataset_path``.
        options: Name in ``workload.options`` to what it is.
        has_answers_in_file: Its file may say how long answers are; that holds where ``output_len`` is null.
        has_own_answers: Each prompt has an answer length of its own, which nothing replaces.
        needs_output_len: Its prompts have lengths of their own, its answers have not.
        times: Function from a load point to when each request is sent, in seconds from the first; None where
            a rate says it.
        without_times: Dataset that sends the same at a rate, or all at once; None where there is none.
        package: Package beside vLLM with which its client reads it; None where it needs no other.
        draws_lengths: Its lengths are drawn around ``input_len`` and ``output_len`` (``range_ratio``).
        has_own_lengths: Its prompts have lengths of their own, so that ``input_len`` means nothing.
        conversations: Function from a load point and a generator to the conversations whose turns it sends
            (``workload.conversations``), one after the other of each: a turn's prompt holds all of them
            before it, and it is sent after the answer to the one before. None where requests are single.
        is_batch: One batch is measured again and again, in place of requests.
        arguments: Function from a load point to its words for ``vllm bench serve``; None where that cannot
            send it.
        is_templated: vLLM's client puts its prompts into the model's chat template.
        sends_tokens: Its prompts are token ids, which the chat endpoint does not take.
        script_arguments: Function from a load point and a release to its words for the script of earlier
            releases; None where that does not send it.
        draw: Function from a load point and a generator to lengths in, lengths out, and for each request the
            index of the one whose prompt it sends: what is modelled in its place; None where nothing is.
        pieces: Function from a load point, its prompt lengths and a generator to each prompt in pieces, equal
            where prompts begin alike (``Workload.pieces``); None where none do.
        check: Function from a load point that raises ``ConfigError`` where its file is wrong; None for none.
        repeated: Function from a load point to how many prompts are sent more than once at least, or to None.
        is_read_for_lengths: What is drawn of it tells its lengths, in place of the usual ones below.
        has_exact_lengths: Its drawn lengths are those that are sent; text is counted by characters.
        mean_input_len: Prompt tokens in the mean, where it has own lengths; ShareGPT's unless it says others.
        mean_output_len: Answer tokens in the mean, where nothing else is asked.
        longest_output_len: Answer tokens of the longest that usually comes.
        most_input_len: No prompt is longer.
        most_total_len: No prompt and answer are longer together.
    """

    name: str
    bench_name: str | None = None
    needs_server: bool = True
    reads_file: bool = False
    draws_lengths: bool = False
    has_own_lengths: bool = False
    is_batch: bool = False
    arguments: str | None = None
    script_arguments: str | None = None
    draw: str | None = "sweeper.workload.requests:draw_random"
    conversations: str | None = None
    pieces: str | None = None
    check: str | None = None
    repeated: str | None = None
    mean_input_len: float = 215.0
    mean_output_len: float = 198.0
    longest_output_len: float = 1200.0
    most_input_len: int = 1024
    most_total_len: int = 2048
    options: Mapping[str, DatasetOption] = field(default_factory=dict)
    is_read_for_lengths: bool = False
    has_exact_lengths: bool = False
    has_answers_in_file: bool = False
    has_own_answers: bool = False
    needs_output_len: bool = False
    times: str | None = None
    is_templated: bool = False
    package: str | None = None
    sends_tokens: bool = False
    without_times: str | None = None


_SHAREGPT = DatasetKind(
    name="sharegpt",
    reads_file=True,
    has_own_lengths=True,
    arguments="sweeper.clients.dataset_arguments:sharegpt",
    script_arguments="sweeper.clients.dataset_arguments:sharegpt_for_script",
    draw="sweeper.workload.requests:draw_sharegpt",
    check="sweeper.clients.requirements:check_sharegpt",
    repeated="sweeper.clients.requirements:repeated_in_sharegpt",
    # After vLLM's filter, as published for its benchmark; answers as ``workload.drawing`` has them.
    mean_input_len=215.0,
    mean_output_len=187.0,
    longest_output_len=801.0,
    options={
        "mean_output_len": DatasetOption(
            flag=None,
            type=float,
            low=1,
            meaning="on the simulated platform, tokens of an answer in the mean, where the model ends some "
            "of them before the recorded length; 187 where nothing is said, and 198 with ignore_eos",
        ),
    },
)
_RANDOM = DatasetKind(
    name="random",
    has_exact_lengths=True,
    draws_lengths=True,
    pieces="sweeper.workload.requests:pieces_after_one_prefix",
    arguments="sweeper.clients.dataset_arguments:random",
    script_arguments="sweeper.clients.dataset_arguments:random_for_script",
    options={
        "prefix_len": DatasetOption(
            flag="--random-prefix-len",
            meaning="tokens that all prompts begin with, before input_len of their own",
        )
    },
)
_PREFIX_REPETITION = DatasetKind(
    name="prefix_repetition",
    has_exact_lengths=True,
    is_read_for_lengths=True,
    has_own_lengths=True,
    needs_output_len=True,
    pieces="sweeper.workload.requests:pieces_after_prefixes",
    arguments="sweeper.clients.dataset_arguments:prefix_repetition",
    draw="sweeper.workload.requests:draw_prefix_repetition",
    check="sweeper.clients.requirements:check_prefix_repetition",
    options={
        "num_prefixes": DatasetOption(
            flag="--prefix-repetition-num-prefixes", low=1, is_required=True, meaning="prefixes that differ"
        ),
        "prefix_len": DatasetOption(
            flag="--prefix-repetition-prefix-len", low=1, is_required=True, meaning="tokens of each prefix"
        ),
        "suffix_len": DatasetOption(
            flag="--prefix-repetition-suffix-len", low=1, is_required=True, meaning="tokens after the prefix"
        ),
    },
)
_SONNET = DatasetKind(
    name="sonnet",
    reads_file=True,
    pieces="sweeper.workload.requests:pieces_after_one_prefix",
    arguments="sweeper.clients.dataset_arguments:sonnet",
    check="sweeper.clients.requirements:check_text_file",
    options={
        "prefix_len": DatasetOption(
            flag="--sonnet-prefix-len", meaning="tokens of input_len that all prompts begin with"
        )
    },
)
_BURSTGPT = DatasetKind(
    name="burstgpt",
    has_exact_lengths=True,
    reads_file=True,
    is_read_for_lengths=True,
    has_own_lengths=True,
    has_own_answers=True,
    arguments="sweeper.clients.dataset_arguments:from_file",
    package="pandas",
    draw="sweeper.workload.files:draw_burstgpt",
    check="sweeper.workload.files:check_burstgpt",
    most_input_len=131072,
    most_total_len=262144,
)
_CUSTOM = DatasetKind(
    name="custom",
    reads_file=True,
    is_read_for_lengths=True,
    has_own_lengths=True,
    has_answers_in_file=True,
    arguments="sweeper.clients.dataset_arguments:custom",
    is_templated=True,
    package="pandas",
    draw="sweeper.workload.files:draw_custom",
    check="sweeper.workload.files:check_custom",
    most_input_len=131072,
    most_total_len=262144,
    options={
        "skip_chat_template": DatasetOption(
            flag="--skip-chat-template", type=bool, meaning="prompts are sent as they stand in the file"
        )
    },
)
_TIMED_TRACE = DatasetKind(
    name="timed_trace",
    has_exact_lengths=True,
    reads_file=True,
    is_read_for_lengths=True,
    has_own_lengths=True,
    has_own_answers=True,
    times="sweeper.workload.files:trace_times_s",
    without_times="trace_lengths",
    pieces="sweeper.workload.files:trace_pieces",
    arguments="sweeper.clients.dataset_arguments:timed_trace",
    sends_tokens=True,
    draw="sweeper.workload.files:draw_timed_trace",
    check="sweeper.workload.files:check_timed_trace",
    most_input_len=131072,
    most_total_len=262144,
    options={
        "speed": DatasetOption(
            flag=None, type=float, low=0.001, meaning="how many times as fast as it was; 1 is as it was"
        ),
        "chunk_len": DatasetOption(
            flag="--timed-trace-chunk-hash-size",
            low=1,
            meaning="tokens that one of hash_ids stands for; 512 unless given",
        ),
    },
)
_TRACE_LENGTHS = replace(
    _TIMED_TRACE,
    name="trace_lengths",
    bench_name="timed_trace",
    times=None,
    without_times=None,
    arguments="sweeper.clients.dataset_arguments:trace_lengths",
    options={"chunk_len": _TIMED_TRACE.options["chunk_len"]},
)
_HF = DatasetKind(
    name="hf",
    reads_file=True,
    has_own_lengths=True,
    arguments="sweeper.clients.dataset_arguments:hugging_face",
    package="datasets",
    is_templated=True,
    draw=None,
    most_input_len=131072,
    most_total_len=262144,
    options={
        "subset": DatasetOption(flag="--hf-subset", type=str, meaning="part of the dataset"),
        "split": DatasetOption(flag="--hf-split", type=str, meaning="split of the dataset"),
        "name": DatasetOption(
            flag="--hf-name",
            type=str,
            meaning="hub id that a local folder is a copy of, which says how it is read",
        ),
    },
)
_PAUSE = DatasetOption(
    flag=None, type=float, meaning="seconds from the end of an answer to the next message of its conversation"
)
_CONVERSATIONS = DatasetKind(
    name="conversations",
    has_exact_lengths=True,
    draws_lengths=True,
    is_read_for_lengths=True,
    conversations="sweeper.workload.conversations:draw",
    draw=None,
    check="sweeper.workload.conversations:check_drawn",
    options={
        "turns": DatasetOption(
            flag=None, low=1, is_required=True, meaning="messages of a user in each conversation"
        ),
        "system_len": DatasetOption(
            flag=None, meaning="tokens of the system prompt, which all conversations have in common"
        ),
        "context_len": DatasetOption(
            flag=None,
            meaning="tokens that each conversation begins with besides, such as a text to talk about",
        ),
        "pause_s": _PAUSE,
    },
)
_CUSTOM_CONVERSATIONS = DatasetKind(
    name="custom_conversations",
    reads_file=True,
    has_own_lengths=True,
    has_answers_in_file=True,
    is_read_for_lengths=True,
    conversations="sweeper.workload.conversation_files:of",
    draw=None,
    check="sweeper.workload.conversation_files:check",
    most_input_len=1048576,
    most_total_len=2097152,
    options={"pause_s": replace(_PAUSE, meaning=f"{_PAUSE.meaning}, where the file says none")},
)
_TIMED_CONVERSATIONS = replace(
    _CUSTOM_CONVERSATIONS,
    name="timed_conversations",
    without_times="custom_conversations",
    times="sweeper.workload.conversation_files:times_s",
    conversations="sweeper.workload.conversation_files:timed",
    check="sweeper.workload.conversation_files:check_timed",
    options={"speed": _TIMED_TRACE.options["speed"]},
)
_LATENCY = DatasetKind(name="latency", has_exact_lengths=True, needs_server=False, is_batch=True)
_THROUGHPUT = DatasetKind(name="throughput", has_exact_lengths=True, needs_server=False)

DATASETS = Registry(
    "workload.dataset",
    (
        *(
            _SHAREGPT,
            _RANDOM,
            _CUSTOM,
            _PREFIX_REPETITION,
            _SONNET,
            _BURSTGPT,
            _TIMED_TRACE,
            _TRACE_LENGTHS,
            _HF,
        ),
        *(_CONVERSATIONS, _CUSTOM_CONVERSATIONS, _TIMED_CONVERSATIONS),
        *(_LATENCY, _THROUGHPUT),
    ),
    declared_by=DatasetKind,
    group="sweeper.datasets",
)
"""What a load point can send."""

"""What a client sends: a load point, by request rate or by users of a closed loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

from sweeper.kinds import DATASETS
from sweeper.records.kinds import Scalar
from sweeper.records.load_search import RateSearch, UserSearch

GOODPUT_BOUNDS = ("ttft_ms", "tpot_ms", "e2el_ms")
"""Latencies of a request that goodput can bound. Source: vLLM's benchmark, ``--goodput``."""

MEASURED_ITERATIONS = 5
"""Rounds of a batch that the latency benchmark measures. Source: AMD's vllm_benchmark_report.sh."""

LOAD_COLUMNS = (
    *("request_rate_per_s", "max_concurrency", "input_len", "output_len", "num_prompts", "dataset"),
    *("range_ratio", "ignore_eos", "dataset_options", "arrivals", "request_form"),
)
"""Columns in which load points differ. The seed is none of them: other seeds are repeats."""

SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty"),
)
"""Sampling parameters of a request. Source: vLLM's benchmark, its group of sampling parameters."""


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A request rate that rises over the run, from request to request.

    Source: vLLM's benchmark, ``--ramp-up-strategy``.

    Attributes:
        strategy: ``linear``: the rate rises by the same amount from request to request; ``exponential``: by
            the same factor.
        start_per_s: Rate of the first request, per second.
        end_per_s: Rate of the last one, per second.
    """

    strategy: Literal["linear", "exponential"]
    start_per_s: int
    end_per_s: int

    def __str__(self) -> str:
        return f"{self.strategy} ramp from {self.start_per_s} to {self.end_per_s} QPS"


@dataclass(frozen=True, kw_only=True)
class RequestForm:
    """How each request is put to the server, beside its prompt and length.

    Attributes:
        endpoint: ``completions``: text in, text out; ``chat``: messages, which the server puts into the
            model's chat template.
        sampling: Pairs of one of ``SAMPLING`` and its value; without a temperature it is 0.
        extra_body: JSON object that is added to the body of every request, such as
            ``{"chat_template_kwargs": {"enable_thinking": false}}``; None adds nothing.
    """

    endpoint: Literal["completions", "chat"] = "completions"
    sampling: tuple[tuple[str, float], ...] = ()
    extra_body: str | None = None

    def __str__(self) -> str:
        parts: list[str] = [self.endpoint] if self.endpoint != RequestForm.endpoint else []
        parts += [f"{name} {value:g}" for name, value in self.sampling]
        parts += [] if self.extra_body is None else [self.extra_body]
        return ", ".join(parts)


_USUAL_FORM = RequestForm()


@dataclass(frozen=True, kw_only=True)
class LoadPoint:
    """What the client sends to the engine in one run.

    Attributes:
        dataset: Name of a ``DatasetKind``. Two are vLLM's benchmarks without a server: ``latency`` is one
            batch again and again, ``throughput`` everything at once.
        num_prompts: Requests sent; for ``latency``, those of one batch.
        request_rate_per_s: Mean of the Poisson arrivals; None sends everything at once.
        max_concurrency: Requests under way at once; None is unlimited. Where nothing says when requests are
            sent, it is a closed loop of as many users, each of whom sends the next when the last is answered.
        input_len: Prompt tokens asked for; of no effect where the dataset has lengths of its own.
        output_len: Output tokens asked for; None keeps those of the dataset.
        range_ratio: Random lengths lie in len * (1 +/- ratio); 0 fixes them.
        dataset_path: File of the dataset, where it has one.
        ignore_eos: Generate exactly the wanted number of tokens.
        client_seed: Seed of arrivals and sampling.
        keeps_prefix_cache: Begin with what the engine remembers of earlier runs, as a benchmark that is
            run a second time does; otherwise its prefix cache is emptied first. Load points share their
            prompts, so without that every one after the first would be answered from the cache.
        goodput_ms: What a request has to keep to count as good: pairs of one of ``GOODPUT_BOUNDS`` and
            milliseconds; empty leaves goodput unknown.
        rate_search: Bounds whose highest request rate is searched for; None measures at one rate.
        options: Pairs of what the dataset takes beside lengths (``DatasetKind.options``) and its value.
        burstiness: Shape of the Gamma distribution of the gaps between arrivals: 1 is Poisson, below 1 comes
            in bursts, above 1 is more even.
        ramp: Rise of the request rate over the run, in place of ``request_rate_per_s``; None for none.
        form: How each request is put.
        user_search: Bounds with which the most users of a closed loop are searched for; None for no search.
        warmup_per_user: Requests of each user that are sent just before the load point and thrown away.
    """

    dataset: str
    num_prompts: int
    request_rate_per_s: float | None = None
    max_concurrency: int | None = None
    input_len: int | None = None
    output_len: int | None = None
    range_ratio: float = 0.0
    dataset_path: str | None = None
    ignore_eos: bool = False
    client_seed: int = 0
    keeps_prefix_cache: bool = False
    goodput_ms: tuple[tuple[str, float], ...] = ()
    rate_search: RateSearch | None = None
    options: tuple[tuple[str, Scalar], ...] = ()
    burstiness: float = 1.0
    ramp: Ramp | None = None
    form: RequestForm = _USUAL_FORM
    user_search: UserSearch | None = None
    warmup_per_user: int = 0

    @cached_property
    def identity(self) -> Mapping[str, object]:
        """What is sent, as plain data; what came later is left out where unused, so that old keys hold."""
        content = asdict(self)
        for name in ("goodput_ms", "rate_search", "options", "ramp", "user_search"):
            if not content[name]:
                del content[name]
        if self.burstiness == LoadPoint.burstiness:
            del content["burstiness"]
        if self.form == _USUAL_FORM:
            del content["form"]
        if not self.warmup_per_user:
            del content["warmup_per_user"]
        return content

    def option(self, name: str) -> Scalar | None:
        """Return an option of the dataset; None where it was not given."""
        return dict(self.options).get(name)

    @property
    def warmup_prompts(self) -> int | None:
        """Requests just before the load point whose numbers are thrown away: as many as its users say."""
        return self.warmup_per_user * (self.max_concurrency or 0) or None

    @property
    def dataset_options(self) -> str | None:
        """The dataset's options in words: ``num_prefixes=10, prefix_len=256``; None without any."""
        return ", ".join(f"{name}={value}" for name, value in self.options) or None

    @property
    def arrivals(self) -> str | None:
        """How arrivals differ from Poisson at one rate, in words; None where they do not."""
        parts = [] if self.ramp is None else [str(self.ramp)]
        parts += [] if self.burstiness == LoadPoint.burstiness else [f"burstiness {self.burstiness:g}"]
        return ", ".join(parts) or None

    @property
    def request_form(self) -> str | None:
        """How requests are put where that is not the usual way, in words; None where it is."""
        return str(self.form) or None

    @property
    def goodput_bounds(self) -> str | None:
        """The goodput bounds as vLLM's ``--goodput`` takes them: ``ttft:2000 tpot:100``; None without any."""
        words = (f"{name.removesuffix('_ms')}:{bound:g}" for name, bound in self.goodput_ms)
        return " ".join(words) or None

    @property
    def search(self) -> RateSearch | UserSearch | None:
        """What the load point searches for; None where it is measured as it is."""
        return self.rate_search or self.user_search

    @property
    def max_rate_slo(self) -> str | None:
        """What the search over the request rate keeps, in words; None where there is no such search."""
        return None if self.rate_search is None else str(self.rate_search)

    @property
    def max_users_slo(self) -> str | None:
        """What the search over the users keeps, in words; None where there is no such search."""
        return None if self.user_search is None else str(self.user_search)

    @property
    def users(self) -> int | None:
        """Users of the closed loop that it is; None where requests are sent at times that others set."""
        return users_of(
            request_rate_per_s=self.request_rate_per_s,
            max_concurrency=self.max_concurrency,
            arrivals=self.arrivals,
            dataset=self.dataset,
        )

    @property
    def label(self) -> str:
        """Short text that distinguishes this load point from its siblings in a log or an axis."""
        kind = DATASETS[self.dataset]
        if not kind.needs_server:
            what = "batch of" if kind.is_batch else "requests:"
            return f"{what} {self.num_prompts}, {self.input_len} in, {self.output_len} out"
        parts = self._load_words()
        if self.burstiness != LoadPoint.burstiness:
            parts.append(f"burstiness {self.burstiness:g}")
        parts += [text for text in (self.dataset_options, self.request_form) if text is not None]
        if self.keeps_prefix_cache:
            parts.append("second run")
        return ", ".join(parts)

    def _load_words(self) -> list[str]:
        """Return how heavy the load is, in words: its users, or the rate and the most at a time."""
        if self.search is None and self.users is not None:
            return [users_text(self.users)]
        if self.ramp is not None:
            words = str(self.ramp)
        elif self.search is not None:
            words = self.search.label
        elif self.request_rate_per_s is not None:
            words = f"{self.request_rate_per_s:g} QPS"
        else:
            words = "all at once" if DATASETS[self.dataset].times is None else "at its own times"
        is_limited = self.max_concurrency is not None and self.user_search is None
        return [words, *([f"{self.max_concurrency} at a time"] if is_limited else [])]


def users_of(
    *, request_rate_per_s: float | None, max_concurrency: int | None, arrivals: str | None, dataset: str
) -> int | None:
    """Return the users of a closed loop; None where a load point is none.

    Args:
        request_rate_per_s: Of the load point.
        max_concurrency: Of the load point.
        arrivals: Of the load point: without a rate it is a ramp that has them.
        dataset: What is sent; some have times of their own, others no server and so no users.
    """
    if request_rate_per_s is not None or arrivals is not None:
        return None
    kind = DATASETS.get(dataset)
    is_open = kind is not None and (kind.times is not None or not kind.needs_server)
    return None if is_open else max_concurrency


def users_text(users: int) -> str:
    """Return a number of users in words."""
    return "1 user" if users == 1 else f"{users:,} users"

"""What "Serving LLMs on AMD MI300X: Best Practices" claims, case by case, as data.

Source: Embedded LLM and Hot Aisle, 2024-10-23, https://blog.vllm.ai/2024/10/23/vllm-serving-amd.html.

Words such as "slight", "huge" or "small" have no number in the article. The bounds that stand for them are
this project's reading, named in each statement, so that anybody can disagree with them. Ratios and values
that the article does state count as reached within 10 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.claims import Answer, Claim, ClaimKind, check_published, check_study
from analysis.study import Study

_TTFT, _TPOT, _HIT_RATE = "mean_ttft_ms", "mean_tpot_ms", "prefix_cache_hit_rate"
_NEAR_LOW, _NEAR_HIGH = 0.9, 1.1

CLAIMS: tuple[Claim, ...] = (
    # ---- headline and introduction ----
    Claim(
        id="C01",
        experiment="intro_405b",
        statement="vLLM has 1.5 times TGI's throughput on 405B at 32 QPS (within 10 %)",
        where='TL;DR: "1.5x higher throughput"',
        powers={"vllm_this_guide": 1, "tgi_this_guide": -1},
        stated=1.5,
        low=_NEAR_LOW,
        high=_NEAR_HIGH,
        request_rate_per_s=32.0,
    ),
    Claim(
        id="C02",
        experiment="intro_405b",
        statement="vLLM's first token comes 1.7 times faster than TGI's on 405B at 32 QPS (within 10 %)",
        where='TL;DR: "1.7x faster time-to-first-token (TTFT)"',
        metric=_TTFT,
        powers={"tgi_this_guide": 1, "vllm_this_guide": -1},
        stated=1.7,
        low=_NEAR_LOW,
        high=_NEAR_HIGH,
        request_rate_per_s=32.0,
    ),
    Claim(
        id="C03",
        experiment="intro_70b",
        statement="vLLM has 1.8 times TGI's throughput on 70B at 32 QPS (within 10 %)",
        where='TL;DR: "1.8x higher throughput"',
        powers={"vllm": 1, "tgi": -1},
        stated=1.8,
        low=_NEAR_LOW,
        high=_NEAR_HIGH,
        request_rate_per_s=32.0,
    ),
    Claim(
        id="C04",
        experiment="intro_70b",
        statement="vLLM's first token comes 5.1 times faster than TGI's on 70B at 32 QPS (within 10 %)",
        where='TL;DR: "5.1x faster TTFT than TGI for Llama 3.1 70B"',
        metric=_TTFT,
        powers={"tgi": 1, "vllm": -1},
        stated=5.1,
        low=_NEAR_LOW,
        high=_NEAR_HIGH,
        request_rate_per_s=32.0,
    ),
    Claim(
        id="C05",
        kind=ClaimKind.CONDITION,
        experiment="intro_405b",
        statement="The headline charts were made at 32 QPS",
        where='Captions of the headline charts: "FP16, 32 QPS"',
        powers={},
        open_reason="a condition of the headline charts, not a result; C01 to C04 are checked at 32 QPS",
    ),
    Claim(
        id="C06",
        experiment="intro_405b",
        statement="vLLM's first token comes 3.8 times faster than TGI's, tuned, at 16 QPS (within 10 %)",
        where='vLLM v.s. TGI: "approximately 3.8x faster response times on average ... at 16 QPS"',
        metric=_TTFT,
        powers={"tgi_this_guide": 1, "vllm_this_guide": -1},
        stated=3.8,
        low=_NEAR_LOW,
        high=_NEAR_HIGH,
        request_rate_per_s=16.0,
    ),
    *(
        Claim(
            id=name,
            experiment="intro_405b",
            statement=f"{words} serves {stated} requests per second at {rate:g} QPS (within 10 %)",
            where=f"vLLM v.s. TGI: {quote}",
            powers={series: 1},
            stated=stated,
            low=_NEAR_LOW,
            high=_NEAR_HIGH,
            request_rate_per_s=rate,
        )
        for name, words, series, stated, rate, quote in (
            ("C07", "vLLM, tuned,", "vllm_this_guide", 5.76, 1000.0, '"highest throughput of 5.76"'),
            ("C08", "TGI, tuned,", "tgi_this_guide", 3.55, 1000.0, '"TGI\'s 3.55 requests/second"'),
            ("C09", "vLLM, default,", "vllm_default", 4.05, 16.0, '"throughput of 4.05 requests/second"'),
            ("C10", "TGI, default,", "tgi_default", 2.58, 16.0, '"versus TGI\'s 2.58 requests/second"'),
        )
    ),
    Claim(
        id="intro-a",
        experiment="intro_405b",
        statement="Tuned, vLLM serves more requests per second than TGI at every QPS",
        where='vLLM v.s. TGI: "vLLM consistently outperforms TGI"',
        powers={"vllm_this_guide": 1, "tgi_this_guide": -1},
        low=1.0,
    ),
    Claim(
        id="intro-b",
        experiment="intro_405b",
        statement="By default, vLLM serves more requests per second than TGI at every QPS",
        where='vLLM v.s. TGI: "Even in the default configuration, vLLM shows superior performance"',
        powers={"vllm_default": 1, "tgi_default": -1},
        low=1.0,
    ),
    # ---- Case 1 ----
    Claim(
        id="case1-a",
        experiment="case1_chunked_prefill",
        statement="Disabling chunked prefill beats the default at every QPS",
        where='Case 1: "you should generally expect better performance than with using the default settings"',
        powers={"no_cp": 1, "default": -1},
        low=1.0,
    ),
    *(
        Claim(
            id=name,
            experiment="case1_chunked_prefill",
            statement=f"Chunked prefill with {chunk} tokens beats disabling it at every QPS",
            where='Case 1: "a slight improvement with tuning the chunked prefill values over disabling"',
            powers={f"cp{chunk}": 1, "no_cp": -1},
            low=1.0,
        )
        for name, chunk in (("case1-b", 2048), ("case1-c", 4096))
    ),
    # ---- Case 2 ----
    *(
        Claim(
            id=name,
            experiment="case2_sched_steps",
            statement=f"{more} scheduler steps serve more requests per second than {fewer} at every QPS",
            where='Key settings: "Significant gains ... can be achieved with multi-step scheduling"',
            powers={one: 1, other: -1},
            low=1.0,
        )
        for name, more, fewer, one, other in (
            ("case2-a", 5, 1, "no_cp_steps5", "no_cp"),
            ("case2-b", 10, 5, "no_cp_steps10", "no_cp_steps5"),
            ("case2-c", 15, 10, "no_cp_steps15", "no_cp_steps10"),
        )
    ),
    Claim(
        id="case2-d",
        kind=ClaimKind.READING,
        experiment="case2_sched_steps",
        statement="Going from 5 to 10 steps gives a smaller factor than going from 1 to 5",
        where='Case 2: "diminishing returns the higher it goes up in value"',
        powers={"no_cp_steps10": 1, "no_cp": 1, "no_cp_steps5": -2},
        high=1.0,
    ),
    Claim(
        id="case2-e",
        kind=ClaimKind.READING,
        experiment="case2_sched_steps",
        statement="Going from 10 to 15 steps gives a smaller factor than going from 5 to 10",
        where='Case 2: "diminishing returns the higher it goes up in value"',
        powers={"no_cp_steps15": 1, "no_cp_steps5": 1, "no_cp_steps10": -2},
        high=1.0,
    ),
    Claim(
        id="case2-f",
        kind=ClaimKind.READING,
        experiment="case2_sched_steps",
        statement="Little is left above 10 steps: 15 give less than 5 % more",
        where='Case 2: "hence, we stick with an upper bound of 15"; key settings: "between 10 and 15"',
        powers={"no_cp_steps15": 1, "no_cp_steps10": -1},
        high=1.05,
    ),
    # ---- Case 3 ----
    Claim(
        id="case3-a",
        kind=ClaimKind.READING,
        experiment="case3_prefix_caching",
        statement="Disabling both beats the default by more than 10 % at every QPS",
        where='Case 3, observation 1: Bar 2 over the baseline is "a huge gain in performance"',
        powers={"no_cp": 1, "default": -1},
        low=1.1,
    ),
    Claim(
        id="case3-b",
        experiment="case3_prefix_caching",
        statement="How well chunked prefill does depends on the distribution of prompt lengths",
        where="Case 3, observation 2: Bars 3, 5 and 6 with the baseline",
        powers={},
        open_reason="one dataset has one distribution of prompt lengths; only a second one could tell",
    ),
    Claim(
        id="case3-c",
        kind=ClaimKind.READING,
        experiment="case3_prefix_caching",
        statement="With prefix caching, a chunk of 2048 tokens beats one of 512 at every QPS",
        where="Case 3, observation 2: Bar 6 (teal) and Bar 5 (orange)",
        powers={"cp2048_pc": 1, "cp512_pc": -1},
        low=1.0,
    ),
    Claim(
        id="case3-d",
        kind=ClaimKind.READING,
        experiment="case3_prefix_caching",
        statement="On a fresh run the prefix cache hits less than 5 % of prompt tokens (0.9 % stated)",
        where='Case 3, observation 3: "hit rates of Bar 3 (yellow) and Bar 4 (green) ... 0.9% and 50%"',
        metric=_HIT_RATE,
        powers={"no_cp_pc_fresh": 1},
        high=0.05,
    ),
    Claim(
        id="case3-e",
        kind=ClaimKind.READING,
        experiment="case3_prefix_caching",
        statement="On a second run the prefix cache hits 40 to 60 % of prompt tokens (50 % stated)",
        where='Case 3, observation 3: "hit rates of Bar 3 (yellow) and Bar 4 (green) ... 0.9% and 50%"',
        metric=_HIT_RATE,
        powers={"no_cp_pc_2nd": 1},
        low=0.4,
        high=0.6,
    ),
    Claim(
        id="case3-f",
        experiment="case3_prefix_caching",
        statement="Where the cache hits rarely, disabling it beats enabling it at every QPS",
        where='Case 3, observation 3: without a "high prefix caching hit rate, disabling both"',
        powers={"no_cp": 1, "no_cp_pc_fresh": -1},
        low=1.0,
    ),
    Claim(
        id="case3-g",
        kind=ClaimKind.READING,
        experiment="case3_prefix_caching",
        statement="Where the cache hits often (second run), enabling it beats disabling it at every QPS",
        where="Case 3, observation 3: Bar 4 (green) and Bar 2 (red)",
        powers={"no_cp_pc_2nd": 1, "no_cp": -1},
        low=1.0,
    ),
    # ---- Case 4 ----
    Claim(
        id="case4-a",
        experiment="case4_capture_len",
        statement="Capturing up to 131072 tokens is slower than up to 16384 at every QPS",
        where='Case 4: increasing it "can sometimes even degrade it"',
        powers={"cap131072": 1, "cap16384": -1},
        high=1.0,
    ),
    Claim(
        id="case4-b",
        experiment="case4_capture_len",
        statement="Capturing up to 65536 tokens is slower than up to 16384 at every QPS",
        where='Case 4: increasing it "can sometimes even degrade it"',
        powers={"cap65536": 1, "cap16384": -1},
        high=1.0,
    ),
    Claim(
        id="case4-c",
        kind=ClaimKind.READING,
        experiment="case4_capture_len",
        statement="Capturing up to 16384 tokens is faster than up to 8192, the default, at every QPS",
        where='Key settings: "set the --max-seq-len-to-capture to 16384"',
        powers={"cap16384": 1, "no_cp_steps10": -1},
        low=1.0,
    ),
    # ---- Case 5 ----
    Claim(
        id="case5-a",
        experiment="case5_amd_env",
        statement="NUMA balancing off and 112 channels serve more requests per second at every QPS",
        where='Case 5: "enabling these two configurations yielded a slight performance improvement"',
        powers={"hw": 1, "cap16384": -1},
        low=1.0,
    ),
    Claim(
        id="case5-b",
        kind=ClaimKind.READING,
        experiment="case5_amd_env",
        statement="The improvement is slight: less than 5 % at every QPS",
        where='Case 5: "the gains might be small"',
        powers={"hw": 1, "cap16384": -1},
        high=1.05,
    ),
    Claim(
        id="case5-c",
        kind=ClaimKind.READING,
        experiment="case5_amd_env",
        statement="Tokens come no slower for it: mean TPOT does not rise at any QPS",
        where='Case 5: "a slight performance improvement", with a figure of mean TPOT',
        metric=_TPOT,
        powers={"hw": 1, "cap16384": -1},
        high=1.0,
    ),
    # ---- Case 6 ----
    Claim(
        id="case6-a",
        experiment="case6_kv_cache_dtype",
        statement="A KV cache of the model's type serves more requests per second than fp8 at every QPS",
        where='Case 6: "Auto KVCache type (red) achieves a higher request per second rate"',
        powers={"hw": 1, "hw_fp8": -1},
        low=1.0,
    ),
    Claim(
        id="case6-b",
        kind=ClaimKind.READING,
        experiment="case6_kv_cache_dtype",
        statement="The cost of fp8 is small: less than 10 % at every QPS",
        where='Case 6: "the cost of the overhead seems to be small"',
        powers={"hw": 1, "hw_fp8": -1},
        high=1.1,
    ),
    # ---- Case 7 ----
    Claim(
        id="case7-a",
        experiment="case7_tensor_parallel",
        statement="TP 8 serves more requests per second than TP 4 at every QPS",
        where='Case 7: "increasing the tensor parallelism degree can improve performance"',
        powers={"hw_tp8": 1, "hw": -1},
        low=1.0,
    ),
    Claim(
        id="case7-b",
        experiment="case7_tensor_parallel",
        statement="TP 8 serves less than twice what TP 4 serves at every QPS",
        where='Case 7: "the gains aren\'t always linear"',
        powers={"hw_tp8": 1, "hw": -1},
        high=2.0,
    ),
    Claim(
        id="case7-c",
        kind=ClaimKind.READING,
        experiment="case7_tensor_parallel",
        statement="TP 8 has the lower mean TTFT at every QPS",
        where='Case 7: "if minimizing latency is the priority, increasing the tensor parallelism degree"',
        metric=_TTFT,
        powers={"hw_tp8": 1, "hw": -1},
        high=1.0,
    ),
    Claim(
        id="case7-d",
        kind=ClaimKind.READING,
        experiment="case7_tensor_parallel",
        statement="TP 8 has the lower mean TPOT at every QPS",
        where='Case 7: "if minimizing latency is the priority, increasing the tensor parallelism degree"',
        metric=_TPOT,
        powers={"hw_tp8": 1, "hw": -1},
        high=1.0,
    ),
    Claim(
        id="case7-e",
        experiment="case7_tensor_parallel",
        statement="Two instances of TP 4 serve more requests per second than one of TP 8 at every QPS",
        where='Case 7: "we recommend launching multiple instances of vLLM"; advised, not measured',
        powers={"tuned_2_tp4": 1, "hw_tp8": -1},
        low=1.0,
    ),
    # ---- Case 8 ----
    Claim(
        id="case8-a",
        experiment="case8_max_num_seqs",
        statement="Up to 512 sequences serve more requests per second than up to 256 at every QPS",
        where='Key settings: "increase --max-num-seqs to 512 or higher"',
        powers={"hw_seqs512": 1, "hw": -1},
        low=1.0,
    ),
    Claim(
        id="case8-b",
        experiment="case8_max_num_seqs",
        statement="Up to 1024 sequences serve more requests per second than up to 256 at every QPS",
        where='Key settings: "can significantly improve resource utilization and throughput"',
        powers={"hw_seqs1024": 1, "hw": -1},
        low=1.0,
    ),
    Claim(
        id="case8-c",
        experiment="case8_max_num_seqs",
        statement="The limit still binds at 1024: going there from 512 still serves more at every QPS",
        where='Case 8: "still a limiting factor, even if --max-num-seqs is set at 1024"',
        powers={"hw_seqs1024": 1, "hw_seqs512": -1},
        low=1.0,
    ),
    # ---- Quick start ----
    Claim(
        id="quick-a",
        experiment="quick_start",
        statement="The recommended command serves more requests per second than the default at every QPS",
        where="Quick Start Guide: the command",
        powers={"command": 1, "default": -1},
        low=1.0,
    ),
    Claim(
        id="quick-b",
        experiment="quick_start",
        statement="The CK flash attention is a lot faster than the Triton one",
        where='Quick Start Guide: "thought we didn\'t show here, ... a lot faster"',
        powers={},
        open_reason="the article shows no figure of it, and this experiment runs the CK one alone",
    ),
)
"""In the order of the article."""


def answers(studies: Sequence[Study], *, experiments: Path | None = None) -> tuple[Answer, ...]:
    """Judge every claim about the experiments of some studies, on the figures and on each study.

    Args:
        studies: The studies; without any, the claims about all experiments are judged on the figures.
        experiments: Folder of experiments; None takes the one of this installation.
    """
    wanted = {study.experiment for study in studies}
    found = []
    for claim in CLAIMS:
        if studies and claim.experiment not in wanted:
            continue
        found.append(check_published(claim, experiments=experiments))
        found += [
            check_study(claim, study, experiments=experiments)
            for study in studies
            if study.experiment == claim.experiment
        ]
    return tuple(found)

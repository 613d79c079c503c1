"""What each release's benchmark can send: in its own words, or refused with the release that can."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import knobs
from sweeper.clients import dataset_arguments, sendable
from sweeper.clients.vllm_bench import arrival_arguments, form_arguments
from sweeper.errors import ConfigError
from sweeper.kinds import DATASETS
from sweeper.records import LoadPoint, Ramp, RequestForm

POINTS = {
    "sharegpt": LoadPoint(dataset="sharegpt", num_prompts=8, dataset_path="s.json"),
    "random": LoadPoint(
        dataset="random", num_prompts=8, input_len=64, output_len=8, options=(("prefix_len", 32),)
    ),
    "custom": LoadPoint(dataset="custom", num_prompts=8, output_len=8, dataset_path="p.jsonl"),
    "prefix_repetition": LoadPoint(
        dataset="prefix_repetition",
        num_prompts=8,
        output_len=8,
        options=(("num_prefixes", 2), ("prefix_len", 64), ("suffix_len", 16)),
    ),
    "sonnet": LoadPoint(
        dataset="sonnet",
        num_prompts=8,
        input_len=550,
        output_len=150,
        dataset_path="s.txt",
        options=(("prefix_len", 200),),
    ),
    "burstgpt": LoadPoint(dataset="burstgpt", num_prompts=8, dataset_path="b.csv"),
    "timed_trace": LoadPoint(dataset="timed_trace", num_prompts=8, dataset_path="t.jsonl"),
    "trace_lengths": LoadPoint(
        dataset="trace_lengths", num_prompts=8, request_rate_per_s=2.0, dataset_path="t.jsonl"
    ),
    "hf": LoadPoint(dataset="hf", num_prompts=8, dataset_path="org/data", options=(("split", "train"),)),
}
RELEASES = [release for release in knobs.releases() if knobs.is_between(release, "0.9.1", None)]


def words(point: LoadPoint) -> list[str]:
    return [*dataset_arguments.of(point), *arrival_arguments(point), *form_arguments(point)]


def test_every_dataset_of_the_client_is_tried() -> None:
    assert set(POINTS) == {name for name in DATASETS if DATASETS[name].arguments is not None}


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("release", RELEASES)
def test_dataset_is_sent_with_flags_of_its_release_or_refused_with_the_first_that_can(
    name: str, release: str
) -> None:
    point = POINTS[name]
    span = knobs.bench_releases(DATASETS[name].bench_name or name)
    assert span is not None
    first, without = span
    is_there = knobs.is_between(release, first, None) and not (
        without is not None and knobs.is_between(release, without, None)
    )
    if not is_there:
        with pytest.raises(ConfigError, match=rf"cannot send it.*{first.replace('.', '[.]')}"):
            sendable.check(point, release=release)
        return
    sendable.check(point, release=release)
    flags = [word for word in words(point) if word.startswith("--")]
    assert [flag for flag in flags if knobs.bench_flag(flag, release) is None] in ([], ["--no-self-timed"])
    assert ("--no-self-timed" in flags) is (name == "trace_lengths")


def test_what_a_release_lacks_is_refused_with_the_flag_and_the_first_that_has_it() -> None:
    point = POINTS["random"]
    ramp = LoadPoint(
        dataset="random",
        num_prompts=8,
        input_len=9,
        output_len=9,
        ramp=Ramp(strategy="linear", start_per_s=1, end_per_s=9),
    )
    with pytest.raises(
        ConfigError, match=r"workload\.ramp_up: .*no --ramp-up-strategy \(it came with 0\.9\.2\)"
    ):
        sendable.check(ramp, release="0.9.1")
    sendable.check(ramp, release="0.9.2")
    body = LoadPoint(
        dataset="random", num_prompts=8, input_len=9, output_len=9, form=RequestForm(extra_body='{"a": 1}')
    )
    with pytest.raises(ConfigError, match=r"workload\.extra_body: .*it came with 0\.11\.1"):
        sendable.check(body, release="0.11.0")
    own = LoadPoint(dataset="custom", num_prompts=8, dataset_path="p.jsonl")
    with pytest.raises(ConfigError, match=r"workload\.output_len: is null.*from 0\.14\.0"):
        sendable.check(own, release="0.13.0")
    sendable.check(own, release="0.14.0")
    assert point.identity["options"] == (("prefix_len", 32),)


def test_prompts_for_the_chat_endpoint_are_put_into_its_template_once() -> None:
    def told(point: LoadPoint, release: str = "0.32.0", endpoint: str = "chat") -> list[str]:
        asked = replace(point, form=RequestForm(endpoint=endpoint))  # type: ignore[arg-type]
        return dataset_arguments.unless_templated_twice(asked, release=release)

    custom = POINTS["custom"]
    assert told(custom) == ["--skip-chat-template"]
    assert told(custom, "0.11.0") == ["--custom-skip-chat-template"]
    assert told(custom, endpoint="completions") == []
    assert told(replace(custom, options=(("skip_chat_template", False),))) == []
    assert told(POINTS["random"]) == []
    assert told(POINTS["hf"]) == ["--skip-chat-template"]


def test_token_ids_are_not_sent_to_the_chat_endpoint() -> None:
    for name in ("timed_trace", "trace_lengths"):
        chat = replace(POINTS[name], form=RequestForm(endpoint="chat"))
        with pytest.raises(ConfigError, match=r"workload\.endpoint: is chat with dataset .*token ids"):
            sendable.check(chat, release="0.32.0")


@pytest.mark.vllm
def test_installed_client_takes_every_word(vllm_python: str, tmp_path: Path) -> None:
    """The real parser of the CPU build, given the words of every dataset that its release sends."""
    lines = []
    for name, point in POINTS.items():
        span = knobs.bench_releases(DATASETS[name].bench_name or name)
        assert span is not None
        if span[1] is None or not knobs.is_between("0.32.0", span[1], None):
            lines.append(words(point))
    form = RequestForm(endpoint="chat", sampling=(("top_p", 0.9),), extra_body='{"min_tokens": 2}')
    ramp = Ramp(strategy="exponential", start_per_s=1, end_per_s=9)
    lines.append(
        words(LoadPoint(dataset="random", num_prompts=8, input_len=9, output_len=9, ramp=ramp, form=form))
    )
    code = (
        "import argparse, json, sys\nfrom vllm.benchmarks.serve import add_cli_args\nparser = "
        "argparse.ArgumentParser()\nadd_cli_args(parser)\nfor line in json.load(sys.stdin): "
        "parser.parse_args([*line, '--num-prompts', '8'])\n"
    )
    found = subprocess.run(
        [vllm_python, "-c", code],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=300,
        # What it imports keeps a cache in the temporary folder.
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert found.returncode == 0, found.stderr[-2000:]

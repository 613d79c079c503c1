"""Conversations: what is drawn, what a file of one's own says, and what a client is given to send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper import cli
from sweeper.errors import ConfigError
from sweeper.records import LoadPoint
from sweeper.store.store import Store
from sweeper.workload import conversation_files, conversations
from sweeper.workload.lengths import expected
from sweeper.workload.requests import make_workload

DRAWN = LoadPoint(
    dataset="conversations",
    num_prompts=50,
    input_len=100,
    output_len=40,
    range_ratio=0.5,
    options=(("pause_s", 4.0), ("system_len", 64), ("turns", 6)),
)
TALKS: list[Mapping[str, Any]] = [
    {
        "session_id": "a",
        "turns": [
            {"role": "system", "text": "You answer shortly."},
            {"text": "What is a wave? " * 10, "output_length": 12, "timestamp": 5000},
            {"text": "And a wavelet?", "output_length": 20, "delay": 1500},
        ],
    },
    {"turns": [{"input_length": 300, "output_length": 9, "timestamp": 2000}]},
    {"session_id": "a", "turns": [{"text": "Thanks.", "output_length": 3, "timestamp": 60000}]},
]


def talks(tmp_path: Path, rows: list[Mapping[str, Any]] | None = None, *, prompts: int = 4) -> LoadPoint:
    path = tmp_path / "talks.jsonl"
    path.write_text("\n".join(map(json.dumps, rows or TALKS)), encoding="utf-8")
    return LoadPoint(dataset="custom_conversations", num_prompts=prompts, dataset_path=str(path))


# --- drawn ---


def test_turns_lengths_and_pauses_lie_in_their_range() -> None:
    drawn = conversations.of(replace(DRAWN, num_prompts=4000), seed=1)
    whole = drawn[:-1]  # the last one ends where the requests do
    assert {len(one.turns) for one in whole} == set(range(3, 10))
    assert sum(len(one.turns) for one in drawn) == 4000
    turns = [turn for one in drawn for turn in one.turns]
    for values, low, high in (
        ([turn.input_tokens for turn in turns], 50, 150),
        ([turn.output_tokens for turn in turns], 20, 60),
        ([turn.pause_s for turn in turns], 2.0, 6.0),
    ):
        assert low <= min(values) <= low * 1.05
        assert high * 0.95 <= max(values) <= high
    assert {one.system_tokens for one in drawn} == {64}


def test_first_conversations_are_the_same_for_every_number_of_requests() -> None:
    few, many = (conversations.of(replace(DRAWN, num_prompts=count), seed=3) for count in (50, 500))
    assert many[: len(few) - 1] == few[:-1]
    assert conversations.of(DRAWN, seed=4) != few


def test_text_of_its_own_begins_each_conversation() -> None:
    point = replace(DRAWN, range_ratio=0.0, options=(("context_len", 1000), ("turns", 2)))
    assert make_workload(point, seed=0).input_tokens[:4].tolist() == [1100, 1240, 1100, 1240]


def test_expected_lengths_are_those_of_whole_prompts() -> None:
    point = replace(DRAWN, range_ratio=0.0, num_prompts=6)
    # 64 + 100, and 140 more in each later turn: 164, 304, ..., 864.
    found = expected(point)
    assert found.mean_input == 514
    assert found.mean_output == 40
    assert (found.conversations, found.pauses_s) == (1, 20.0)


# --- a file of one's own ---


def test_file_is_read_by_sessions_with_pauses_of_its_own(tmp_path: Path) -> None:
    first, second = conversations.of(talks(tmp_path), seed=0)
    assert first.system_text == "You answer shortly."
    assert [turn.text for turn in first.turns][1:] == ["And a wavelet?", "Thanks."]
    # Tokens by characters: 160 / 4.
    assert first.turns[0].input_tokens == 40
    assert [turn.output_tokens for turn in first.turns] == [12, 20, 3]
    assert [turn.pause_s for turn in first.turns] == [0.0, 1.5, 0.0]
    assert {turn.time_s for turn in first.turns} == {None}
    assert (second.system, second.turns[0].input_tokens, second.turns[0].text) == (None, 300, None)


def test_option_replaces_pauses_that_file_does_not_say_and_output_len_all_answers(tmp_path: Path) -> None:
    point = replace(talks(tmp_path), output_len=7, options=(("pause_s", 9.0),))
    first, _ = conversations.of(point, seed=0)
    assert [turn.pause_s for turn in first.turns] == [9.0, 1.5, 9.0]
    assert {turn.output_tokens for turn in first.turns} == {7}


def test_times_of_file_begin_with_its_first_conversation(tmp_path: Path) -> None:
    point = replace(talks(tmp_path), dataset="timed_conversations", options=(("speed", 2.0),))
    first, second = conversations.of(point, seed=0)
    assert [turn.time_s for turn in first.turns] == [0.0]
    assert [turn.time_s for turn in second.turns] == [1.5, None, 29.0]
    assert second.turns[1].pause_s == 0.75
    # The turn without a time comes 0.75 s after the one before it, at the soonest.
    assert conversation_files.times_s(point).tolist() == [0.0, 1.5, 2.25, 29.0]
    assert make_workload(point, seed=0).arrival_s.tolist() == [0.0, 1.5, 2.25, 29.0]
    assert expected(point).last_arrival_s == 29.0


def test_equal_system_prompts_are_shared_and_others_are_not(tmp_path: Path) -> None:
    def row(system: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"turns": [{"role": "system", **system}, {"input_length": 20, "output_length": 2}]}

    rows = [row({"text": text}) for text in ("Be brief. " * 20, "Be long. " * 20, "Be brief. " * 20)]
    workload = make_workload(talks(tmp_path, rows, prompts=3), seed=0)
    firsts = [prompt[0][0] for prompt in workload.pieces]
    assert firsts[0] == firsts[2] != firsts[1]


BROKEN: Mapping[str, tuple[str, str]] = {
    "no turns": ('{"session_id": "a"}', "line 1: has no list of turns under 'turns'; expected {"),
    "empty turns": ('{"turns": []}', "line 1: has no list of turns"),
    "turns of text": ('{"turns": ["hello"]}', "line 1: has no list of turns"),
    "no object": ("[1, 2]", "line 1: is a list; expected a JSON object per line"),
    "no JSON": ('{"turns": [', "line 1: is no JSON"),
    "no text": ('{"turns": [{"output_length": 5}]}', "has a turn with neither 'text' nor 'input_length'"),
    "no answer's length": (
        '{"turns": [{"text": "Hello"}]}',
        "line 1: has output_length None, and workload.output_len is null; expected a whole number from 1, or "
        "workload.output_len for all",
    ),
    "an answer in it": (
        '{"turns": [{"text": "Hello", "output_length": 5}, {"role": "assistant", "text": "Hello!"}]}',
        "has a turn of role 'assistant'; expected turns of the user after the system prompt, for the answers "
        "are the server's",
    ),
    "only a system prompt": (
        '{"turns": [{"role": "system", "text": "Be brief."}]}',
        "has a system prompt and no message of a user",
    ),
    "a picture": (
        '{"turns": [{"text": "What?", "image": "a.png", "output_length": 5}]}',
        "has a turn with image; expected a single text under 'text'",
    ),
    "a negative pause": (
        '{"turns": [{"text": "What?", "output_length": 5, "delay": -1}]}',
        "has delay -1 in a turn; expected a number of milliseconds from 0",
    ),
    "a time that is no number": (
        '{"turns": [{"text": "What?", "output_length": 5, "timestamp": "noon"}]}',
        "has timestamp 'noon' in a turn",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_is_refused_with_its_line_and_what_is_expected(case: str, tmp_path: Path) -> None:
    text, message = BROKEN[case]
    point = talks(tmp_path)
    Path(str(point.dataset_path)).write_text(text + "\n", encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        conversation_files.check(point)
    assert message in str(refused.value)
    assert str(refused.value).startswith(f"workload.dataset_path: {point.dataset_path}")


def test_more_turns_than_file_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"num_prompts: 5 turns are asked for, .* has 4; .*Lower it"):
        conversation_files.check(talks(tmp_path, prompts=5))


def test_replay_without_times_is_refused(tmp_path: Path) -> None:
    rows = [{"turns": [{"text": "Hello", "output_length": 5}]}]
    point = replace(talks(tmp_path, rows, prompts=1), dataset="timed_conversations")
    with pytest.raises(ConfigError, match=r"has 1 conversations of 1 without a 'timestamp'.*custom_conv"):
        conversation_files.check_timed(point)


# --- what a client is given ---


def test_client_gets_conversations_that_are_drawn_with_words_in_each_turn() -> None:
    point = replace(DRAWN, num_prompts=20)
    drawn = conversations.of(point, seed=5)
    lines = [json.loads(line) for line in conversations.multi_turn(point, seed=5)]
    assert len({line["session_id"] for line in lines}) == len(lines) == len(drawn)
    for line, one in zip(lines, drawn, strict=True):
        system, *turns = line["turns"]
        assert system["role"] == "system"
        assert len(system["text"].split()) == 64
        assert [len(turn["text"].split()) for turn in turns] == [turn.input_tokens for turn in one.turns]
        assert [turn["output_length"] for turn in turns] == [turn.output_tokens for turn in one.turns]
        assert "delay" not in turns[0]
        assert [turn["delay"] for turn in turns[1:]] == [
            round(turn.pause_s * 1000, 3) for turn in one.turns[1:]
        ]
    assert len({line["turns"][0]["text"] for line in lines}) == 1, "the system prompt is one for all"
    assert len({turn["text"] for line in lines for turn in line["turns"][1:]}) == 20
    assert lines == [json.loads(line) for line in conversations.multi_turn(point, seed=5)]


def test_what_client_is_given_reads_back_as_the_same_conversations(tmp_path: Path) -> None:
    point = replace(talks(tmp_path), dataset="timed_conversations")
    again = tmp_path / "again.jsonl"
    again.write_text("\n".join(conversations.multi_turn(point, seed=0)), encoding="utf-8")
    first, second = (
        conversations.of(replace(point, dataset_path=path), seed=0)
        for path in (point.dataset_path, str(again))
    )
    for before, after in zip(first, second, strict=True):
        assert after.system_text == before.system_text
        for sent, read in zip(before.turns, after.turns, strict=True):
            assert (read.output_tokens, read.pause_s, read.time_s) == (
                sent.output_tokens,
                sent.pause_s,
                sent.time_s,
            )
            # Words that were made for a length are as many as it had tokens.
            assert read.text == sent.text or len(str(read.text).split()) == sent.input_tokens


def test_other_datasets_have_no_conversations() -> None:
    with pytest.raises(
        ConfigError, match=r"is random, whose requests are single ones; expected conversations"
    ):
        conversations.of(LoadPoint(dataset="random", num_prompts=2, input_len=5, output_len=5), seed=0)


# --- a user's commands ---

SIMULATED = (
    *("platform=simulated", "executor=inline", "space.knobs.max_num_seqs=[64]", "engine.release=0.32.0"),
    *("knobs.tensor_parallel_size=4", "study.name=talk"),
)


def test_study_of_conversations_runs_by_users_and_tells_hits(tmp_path: Path) -> None:
    more = ("workload.max_concurrency=[1,8]", "workload.num_prompts=64", f"study.outputs={tmp_path}")
    assert cli.main([*SIMULATED, "workload=conversations", *more]) == 0
    rows = Store(tmp_path / "talk").read()
    rows = rows[rows["state"] == "complete"].sort_values("max_concurrency")
    assert rows["max_concurrency"].unique().tolist() == [1, 8]
    assert (rows["completed"] == 64).all()
    assert (rows["prefix_cache_hit_rate"] > 0.5).all()
    assert set(rows["dataset_options"]) == {"pause_s=5, system_len=512, turns=8"}
    by_users = rows.groupby("max_concurrency")["duration_s"].min()
    assert by_users[8] < by_users[1]


def test_completions_endpoint_is_refused_for_conversations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("workload=conversations", "workload.endpoint=completions")
    assert cli.main([*SIMULATED, *words, f"study.outputs={tmp_path}"]) == 2
    assert "workload.endpoint: is completions with dataset conversations; expected chat" in (
        capsys.readouterr().err
    )


def test_benchmark_of_vllm_cannot_send_conversations_and_says_who_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.standin_server import write_interpreter

    python = write_interpreter(tmp_path / "bin")
    words = ("+experiment=cpu_smoke", "workload=conversations", f"engine.python={python}")
    assert cli.main([*words, f"study.outputs={tmp_path}/outputs"]) == 2
    told = capsys.readouterr().err
    assert "workload.dataset: is conversations, whose requests wait for the answers before them" in told
    assert "choose another dataset." in told


def test_times_exclude_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    point = talks(tmp_path)
    words = (
        *("workload.dataset=timed_conversations", f"workload.dataset_path={point.dataset_path}"),
        *("workload.num_prompts=4", "workload.endpoint=chat", f"study.outputs={tmp_path}"),
    )
    assert cli.main([*SIMULATED, *words, "workload.request_rate_per_s=[2]"]) == 2
    assert "dataset timed_conversations has a time for each request; expected null" in capsys.readouterr().err
    no_rate = "workload.request_rate_per_s=[null]"
    ramp = "workload.ramp_up={strategy: linear, start_per_s: 1, end_per_s: 2}"
    assert cli.main([*SIMULATED, *words, no_rate, ramp]) == 2
    assert "workload.ramp_up: is given with dataset timed_conversations, which has a time for each" in (
        capsys.readouterr().err
    )
    assert cli.main([*SIMULATED, *words, no_rate]) == 0
    said = capsys.readouterr().out
    # The file is read for lengths and times, and there is no other endpoint for them.
    assert not any(f"left out: workload.{key}" in said for key in ("dataset_path", "endpoint"))
    assert (Store(tmp_path / "talk").read()["duration_s"] > 58).all()

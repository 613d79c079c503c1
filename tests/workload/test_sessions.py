"""Conversations of a log: found by their names, turned into messages and pauses, and sent again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeper import cli
from sweeper.errors import ConfigError
from sweeper.records import LoadPoint
from sweeper.store.store import Store
from sweeper.workload import logs, sessions
from sweeper.workload.requests import make_workload

SYSTEM = "You answer shortly and well. " * 40


def openai(name: str, time: float, asked: int, answered: int, *, words: str = "") -> Mapping[str, Any]:
    return {
        "timestamp": time,
        "metadata": {"session_id": name},
        "latency_ms": 1500,
        "request": {
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": words or name * 800},
            ]
        },
        "response": {"usage": {"prompt_tokens": asked, "completion_tokens": answered}},
    }


# Times 0, 10, 30 of one, 5 of another. By hand: 1000; 1000 + 20 + 130; 1150 + 30 + 70 tokens.
LAYOUTS = {
    "openai": "\n".join(
        json.dumps(row)
        for row in (
            openai("secret", 0, 1000, 20),
            openai("secret", 10, 1150, 30),
            openai("other", 5, 400, 9),
            openai("secret", 30, 1250, 4),
        )
    ),
    "mooncake": "\n".join(
        json.dumps(
            {
                "timestamp": 1000 * time,
                "session_id": name,
                "latency_s": 1.5,
                "input_length": asked,
                "output_length": answered,
            }
        )
        for name, time, asked, answered in (
            *(("secret", 0, 1000, 20), ("other", 5, 400, 9)),
            *(("secret", 10, 1150, 30), ("secret", 30, 1250, 4)),
        )
    ),
    # Blocks of 16 tokens: 63 for 1000, 72 for 1150, 79 for 1250.
    "bailian": "\n".join(
        json.dumps(
            {
                **{"chat_id": chat, "parent_chat_id": parent, "timestamp": time, "turn": 1, "type": "text"},
                **{"input_length": asked, "output_length": answered, "latency_s": 1.5},
                "hash_ids": [1000 * (name == "other") + place for place in range(-(-asked // 16))],
            }
        )
        for chat, parent, name, time, asked, answered in (
            *((7, -1, "secret", 0, 1000, 20), (8, -1, "other", 5, 400, 9)),
            *((9, 7, "secret", 10, 1150, 30), (10, 9, "secret", 30, 1250, 4)),
        )
    ),
    "burstgpt": "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens\n"
    "0,secret,1.5,GPT-4,1000,20\n5,other,1.5,GPT-4,400,9\n10,secret,1.5,GPT-4,1150,30\n"
    "30,secret,1.5,GPT-4,1250,4",
    "csv": "time,conversation_id,latency_ms,input_tokens,output_tokens\n"
    "0,secret,1500,1000,20\n5,other,1500,400,9\n10,secret,1500,1150,30\n30,secret,1500,1250,4",
}


def log_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "log.txt"
    path.write_text(text + "\n", encoding="utf-8")
    return path


def replayed(tmp_path: Path, found: sessions.Conversations, *, prompts: int) -> LoadPoint:
    path = tmp_path / "talks.jsonl"
    path.write_text("\n".join(sessions.lines(found)), encoding="utf-8")
    return LoadPoint(dataset="timed_conversations", num_prompts=prompts, dataset_path=str(path))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_messages_and_pauses_are_what_prompts_and_times_have_more(layout: str, tmp_path: Path) -> None:
    log = logs.read(log_of(tmp_path, LAYOUTS[layout]))
    assert (log.layout, log.has_conversations) == (layout, True)
    found = sessions.conversations(log)
    system = log.requests[0].system_tokens
    assert (system > 100) is (layout == "openai")
    first, second = found.turns
    assert [turn.message_tokens for turn in first] == [1000 - system, 130, 70]
    # 10 s after the first came the second, whose answer before took 1.5 s; and 20 s after that the third.
    assert [turn.pause_s for turn in first] == [None, 8.5, 18.5]
    assert [turn.request.input_tokens for turn in second] == [400]
    assert found.cut == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_sent_again_has_times_and_lengths_of_log_and_nothing_of_its_words(
    layout: str, tmp_path: Path
) -> None:
    log = logs.read(log_of(tmp_path, LAYOUTS[layout]))
    point = replayed(tmp_path, sessions.conversations(log), prompts=4)
    text = Path(str(point.dataset_path)).read_text(encoding="utf-8")
    assert not {"secret", "other", "answer"} & set(text.replace('"', " ").split())
    workload = make_workload(point, seed=0)
    assert workload.input_tokens.tolist() == [1000, 1150, 1250, 400]
    assert workload.output_tokens.tolist() == [20, 30, 4, 9]
    assert workload.turns is not None
    assert workload.turns.earliest_s.tolist() == [0, 10, 30, 5]
    assert workload.arrival_s.tolist() == [0, 5, 10, 30]
    # By users in place of times, the pauses hold.
    by_users = make_workload(
        LoadPoint(dataset="custom_conversations", num_prompts=4, dataset_path=point.dataset_path), seed=0
    )
    assert by_users.turns is not None
    assert by_users.turns.pause_s.tolist() == [0, 8.5, 18.5, 0]
    assert not by_users.turns.earliest_s.any()


def test_blocks_of_16_tokens_are_put_together_to_those_of_a_trace(tmp_path: Path) -> None:
    first, other, second, third = logs.read(log_of(tmp_path, LAYOUTS["bailian"])).requests
    # 512 tokens are 32 of them: two blocks for 1000 tokens, three for the later ones. The first is the same;
    # the second of 1000 tokens ends before that of the longer ones does.
    assert [len(one.blocks) for one in (first, other, second, third)] == [2, 1, 3, 3]
    assert first.blocks[0] == second.blocks[0] == third.blocks[0] != other.blocks[0]
    assert second.blocks[1] == third.blocks[1] != first.blocks[1]


def test_equal_system_prompts_of_log_are_shared(tmp_path: Path) -> None:
    rows = [
        openai("a", 0, 1000, 20),
        openai("b", 1, 1000, 20),
        openai("c", 2, 1000, 20),
        openai("a", 3, 1100, 5),
    ]
    rows[2] = json.loads(json.dumps(rows[2]).replace("shortly", "briefly"))
    log = logs.read(log_of(tmp_path, "\n".join(map(json.dumps, rows))))
    workload = make_workload(replayed(tmp_path, sessions.conversations(log), prompts=4), seed=0)
    first, _, second, third = (prompt[0] for prompt in workload.pieces)
    # Equally long, and not equal.
    assert first == second
    assert first[1] == third[1]
    assert first[0] != third[0]


def test_prompt_that_cannot_hold_what_was_said_begins_another_conversation(tmp_path: Path) -> None:
    text = "session_id,input_tokens,output_tokens\na,100,50\na,60,5\na,90,5\nb,10,1\n,10,1\n,10,1"
    found = sessions.conversations(logs.read(log_of(tmp_path, text)))
    # 60 tokens are fewer than 100 + 50; 90 are 25 more than 60 + 5. Requests without a name stand alone.
    assert [[turn.message_tokens for turn in turns] for turns in found.turns] == [
        [100],
        [60, 25],
        [10],
        [10],
        [10],
    ]
    assert found.cut == 1
    said = list(sessions.said(found))
    assert (
        said[0] == "conversations: 5 of 1.2 turns in the mean, longest 2; messages of 36 tokens in the mean"
    )
    assert "pauses between turns: unknown" in said[1]
    assert said[2].startswith("1 prompt is shorter than all that was said before")


def test_messages_that_go_on_with_others_are_a_conversation_without_a_name(tmp_path: Path) -> None:
    def row(time: float, asked: int, *texts: str) -> Mapping[str, Any]:
        roles = ("system", "user", "assistant")
        messages = [
            {"role": roles[0] if place == 0 else roles[1 + (place + 1) % 2], "content": text}
            for place, text in enumerate(texts)
        ]
        return {
            **{"created": time, "messages": messages},
            "usage": {"prompt_tokens": asked, "completion_tokens": 10},
        }

    hello = ("Be brief.", "Hello")
    rows = [
        row(0, 100, *hello),
        row(1, 100, *hello),
        row(2, 150, *hello, "Hi!", "Who are you?"),
        row(3, 160, *hello, "Good day.", "Where am I?"),
        row(4, 230, *hello, "Hi!", "Who are you?", "A model.", "Why?"),
        # Its beginning is nobody's whole prompt, and this one's answer was edited by the user's program.
        row(5, 90, "Be brief.", "Other", "Hi!", "Hello?"),
    ]
    # An agent's results of tools come between an answer and the next request.
    tools = json.loads(json.dumps(rows[4]))
    tools["messages"] += [{"role": "assistant", "content": ""}, {"role": "tool"}, {"role": "tool"}]
    tools.update(created=6, usage={"prompt_tokens": 400, "completion_tokens": 10})
    found = sessions.conversations(logs.read(log_of(tmp_path, "\n".join(map(json.dumps, [*rows, tools])))))
    asked = [[turn.request.input_tokens for turn in turns] for turns in found.turns]
    assert asked == [[100, 150, 230, 400], [100, 160], [90]]
    assert [turn.message_tokens for turn in found.turns[0]][1:] == [40, 70, 160]


def test_log_whose_names_are_all_different_has_no_conversations(tmp_path: Path) -> None:
    log = logs.read(log_of(tmp_path, "session_id,input_tokens,output_tokens\na,100,50\nb,60,5\n,9,9\n,9,9"))
    assert not log.has_conversations


def test_wrong_duration_is_refused_with_its_line(tmp_path: Path) -> None:
    text = "latency_ms,input_tokens,output_tokens\n5,1,2\n-3,1,2"
    with pytest.raises(ConfigError, match=r"line 3: its answer took '-3'; expected a time from 0"):
        logs.read(log_of(tmp_path, text))


def test_command_writes_conversations_that_run_turn_by_turn_and_by_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = log_of(tmp_path, LAYOUTS["openai"])
    assert cli.main(["traffic", str(log), "--output", "mine", "--name", "chat"]) == cli.OK
    said = capsys.readouterr().out
    # 130, 70 and what the first ones have besides their system prompt.
    assert "conversations: 2 of 2 turns in the mean, longest 3; messages of" in said
    assert "pauses between turns: 13.5 s in the middle" in said
    assert "workload.options.pause_s" not in said
    sweep = (
        *("--config-dir", "mine", "workload=chat_conversations", "platform=simulated", "executor=inline"),
        *("engine.release=0.32.0", "space.knobs.max_num_seqs=[64]", "knobs.tensor_parallel_size=1"),
    )
    assert cli.main([*sweep, "study.name=replay"]) == cli.OK
    by_users = ("workload.dataset=custom_conversations", "workload.max_concurrency=[1,2]", "study.name=users")
    assert cli.main([*sweep, *by_users]) == cli.OK
    # Where the log does not say how long answers took, pauses are the user's to choose.
    silent = log_of(tmp_path, LAYOUTS["openai"].replace("latency_ms", "cost"))
    assert cli.main(["traffic", str(silent), "--output", "mine", "--name", "silent"]) == cli.OK
    said = capsys.readouterr().out
    assert "pauses between turns: unknown" in said
    assert "'workload.max_concurrency=[4,16,64]' workload.options.pause_s=10" in said
    replay, users = (Store(Path("outputs") / name).read() for name in ("replay", "users"))
    assert (replay["completed"] == 4).all()
    assert (replay["total_input_tokens"] == 3800).all()
    # The last turn comes at 30 s; by users it comes after pauses of 8.5 s and 18.5 s.
    assert (replay["duration_s"] > 30).all()
    assert users["duration_s"].between(27, 30).all()
    assert np.allclose(users["total_input_tokens"], 3800)

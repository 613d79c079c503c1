"""A workload from a log of one's own requests: five layouts, what is said of them, and broken files."""

from __future__ import annotations

import gzip
import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from sweeper import cli
from sweeper.cli.traffic import said
from sweeper.errors import ConfigError
from sweeper.records import LoadPoint
from sweeper.workload import logs, traffic
from sweeper.workload.requests import make_workload

SYSTEM = "You answer shortly and well. " * 100  # 2900 characters
LAYOUTS = {
    "openai": "\n".join(
        json.dumps(
            {
                "timestamp": 1716000000 + place,
                "request": {
                    "messages": [
                        {"role": "system", "content": SYSTEM},
                        {"role": "user", "content": f"{place} " * 900},
                    ]
                },
                "response": {"body": {"usage": {"prompt_tokens": 1200, "completion_tokens": 10 + place}}},
            }
        )
        for place in range(3)
    ),
    "mooncake": "\n".join(
        json.dumps(
            {
                "timestamp": 1000 * place,
                "input_length": 1200,
                "output_length": 10 + place,
                "hash_ids": [7, place, 9],
            }
        )
        for place in range(3)
    ),
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    + "\n".join(f"2024-05-10 00:00:0{place}.0000000,1200,{10 + place}" for place in range(3)),
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    + "\n".join(f"{place},GPT-4,1200,{10 + place},1210,API" for place in range(3)),
    "csv": "arrival_time,prompt_tokens,completion_tokens\n"
    + "\n".join(f"{place},1200,{10 + place}" for place in range(3)),
}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "log.txt"
    path.write_text(text + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_found_and_its_numbers_are_read(layout: str, tmp_path: Path) -> None:
    log = logs.read(written(tmp_path, LAYOUTS[layout]))
    assert (log.layout, len(log.requests), log.has_times) == (layout, 3, True)
    assert [request.input_tokens for request in log.requests] == [1200] * 3
    assert [request.output_tokens for request in log.requests] == [10, 11, 12]
    times = [request.time_s for request in log.requests]
    assert times[0] is not None and times[2] is not None
    assert times[2] - times[0] == pytest.approx(2.0)
    found = traffic.summarize(log)
    assert found.span_s == pytest.approx(2.0)
    assert found.rate_per_s == pytest.approx(1.0)
    assert found.input_tokens[0] == 1200


def test_prompts_that_begin_alike_are_seen_and_their_words_are_not_kept(tmp_path: Path) -> None:
    log = logs.read(written(tmp_path, LAYOUTS["openai"]))
    first, second = log.requests[0].blocks, log.requests[1].blocks
    assert len(first) == 3, "1200 tokens in blocks of 512"
    assert first[0] == second[0] and first[1] != second[1], "the system's prompt fills the first block"
    assert traffic.summarize(log).shared_frac == pytest.approx(2 * 512 / 3600)
    trace = traffic.trace(log)
    assert "shortly" not in trace and json.loads(trace.splitlines()[2])["timestamp"] == 2000


def test_trace_is_replayed_with_its_times_and_lengths(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(traffic.trace(logs.read(written(tmp_path, LAYOUTS["azure"]))), encoding="utf-8")
    point = LoadPoint(
        dataset="timed_trace", num_prompts=3, dataset_path=str(trace), options=(("speed", 2.0),)
    )
    sent = make_workload(point, seed=0)
    assert sent.arrival_s.tolist() == [0.0, 0.5, 1.0], "twice as fast"
    assert sent.output_tokens.tolist() == [10, 11, 12]
    lengths = make_workload(
        LoadPoint(dataset="trace_lengths", num_prompts=3, dataset_path=str(trace), request_rate_per_s=2.0),
        seed=0,
    )
    assert lengths.output_tokens.tolist() == [10, 11, 12]
    assert not np.allclose(lengths.arrival_s, sent.arrival_s)


def test_log_without_times_or_order(tmp_path: Path) -> None:
    log = logs.read(written(tmp_path, "prompt_tokens,completion_tokens\n5,6\n7,0\n8,9"))
    assert not log.has_times and log.left_out == {"no answer": 1}
    assert traffic.summarize(log).rate_per_s is None
    shuffled = logs.read(written(tmp_path, "time,prompt_tokens,completion_tokens\n9,5,6\n1,7,8"))
    assert [request.time_s for request in shuffled.requests] == [1.0, 9.0]


def test_letters_that_some_take_for_line_ends_are_part_of_a_prompt(tmp_path: Path) -> None:
    asked = {"prompt": "one\u2028two\x85three", "usage": {"prompt_tokens": 9, "completion_tokens": 5}}
    lines = [json.dumps({"timestamp": place, **asked}, ensure_ascii=False) for place in range(3)]
    assert len(logs.read(written(tmp_path, "\n".join(lines))).requests) == 3
    assert len(logs.read(written(tmp_path, "\r\n".join(lines))).requests) == 3


def test_cell_in_quotes_may_go_over_lines_and_be_long(tmp_path: Path) -> None:
    cell = '"first line\nsecond, and ""quoted"" ' + "x" * 140_000 + '"'
    rows = [f"{place},{cell},1200,{10 + place}" for place in range(3)]
    text = "\n".join(("time,prompt,input_tokens,output_tokens", *rows))
    assert [each.output_tokens for each in logs.read(written(tmp_path, text)).requests] == [10, 11, 12]
    with pytest.raises(ConfigError, match="line 6: the tokens of its prompt are 'many'"):
        logs.read(written(tmp_path, text.replace("1200,12", "many,12")))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_columns_may_be_separated_as_spreadsheets_do(tmp_path: Path, separator: str) -> None:
    text = "time,input_tokens,output_tokens\n1,5,6\n2,7,8\n3,9,9\n"
    log = logs.read(written(tmp_path, text.replace(",", separator)))
    assert [request.input_tokens for request in log.requests] == [5, 7, 9]
    assert any("evenly spaced" in line for line in said(traffic.summarize(log)))


def test_answer_as_json_says_what_is_in_the_log_and_what_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = written(tmp_path, LAYOUTS["openai"])
    asked = ["traffic", str(log), "--output", str(tmp_path / "mine"), "--name", "chat", "--json"]
    assert cli.main(asked) == cli.OK
    streams = capsys.readouterr()
    told = json.loads(streams.out)
    found = traffic.summarize(logs.read(log))
    assert told["requests"] == found.requests and told["shared_frac"] == found.shared_frac
    assert told["input_tokens"] == list(found.input_tokens)
    assert Path(told["trace"]).read_text(encoding="utf-8") == traffic.trace(logs.read(log))
    assert Path(told["workload"]).is_file()
    assert "3 requests (openai)" in streams.err


FLAT = {"ts": 1764000000.5, "prompt_len": 1200, "num_generation_tokens": "10"}


def test_lines_of_json_may_have_the_names_of_columns_and_failed_requests_first(tmp_path: Path) -> None:
    failed = {"ts": 1764000000.0, "error": "timeout"}
    log = logs.read(
        written(tmp_path, "\n".join(map(json.dumps, [failed, FLAT, FLAT | {"ts": 1764000002.5}])))
    )
    assert (log.layout, len(log.requests), log.left_out) == ("json", 2, {"no prompt tokens": 1})
    assert (log.requests[0].input_tokens, log.requests[0].output_tokens) == (1200, 10)
    assert traffic.summarize(log).span_s == pytest.approx(2.0)


@pytest.mark.parametrize(
    "header",
    ["Timestamp,Prompt Tokens,Completion Tokens", "ts,promptTokens,output-len", "time,tokens_in,tokens_out"],
)
def test_names_are_read_without_case_spaces_and_signs(header: str, tmp_path: Path) -> None:
    (one,) = logs.read(written(tmp_path, f"{header}\n5,1200,10")).requests
    assert (one.time_s, one.input_tokens, one.output_tokens) == (5.0, 1200, 10)


def test_unknown_columns_are_answered_with_all_names_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"has the columns when, n; expected .*prompt_tokens.*completion_tokens"
    ):
        logs.read(written(tmp_path, "when,n\n1,2"))


@pytest.mark.parametrize("per_second", [1, 10**3, 10**6, 10**9])
def test_times_since_1970_are_read_in_any_unit(per_second: int, tmp_path: Path) -> None:
    rows = [f"{(1764000000 + place) * per_second},5,6" for place in range(3)]
    log = logs.read(written(tmp_path, "\n".join(("timestamp,input_tokens,output_tokens", *rows))))
    assert traffic.summarize(log).rate_per_s == pytest.approx(1.0)


def test_packed_log_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(LAYOUTS["csv"].encode()))
    assert len(logs.read(path).requests) == 3


def test_longer_requests_than_asked_are_left_out_and_counted(tmp_path: Path) -> None:
    text = "input_tokens,output_tokens\n1000,24\n1000,25\n2000000,9"
    log = logs.read(written(tmp_path, text), most_tokens=1024)
    assert (len(log.requests), log.left_out) == (1, {"more than 1,024 tokens": 2})


def test_single_request_and_single_moment_have_no_rate(tmp_path: Path) -> None:
    header = "time,input_tokens,output_tokens\n"
    one = traffic.summarize(logs.read(written(tmp_path, f"{header}5,1,2")))
    assert "arrivals: one request has no rate" in said(one)
    together = traffic.summarize(logs.read(written(tmp_path, f"{header}5,1,2\n5,3,4\n5,5,6")))
    assert "arrivals: all at the same moment, so there is no rate: replayed, all is sent at once" in said(
        together
    )


def test_rates_that_are_proposed_are_around_the_logs_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 41 requests in 2 s: 20 a second.
    rows = [f"{place * 0.05:.2f},5,6" for place in range(41)]
    log = written(tmp_path, "\n".join(("time,input_tokens,output_tokens", *rows)))
    assert cli.main(["traffic", str(log), "--output", str(tmp_path / "mine")]) == cli.OK
    told = capsys.readouterr().out
    assert "'workload.request_rate_per_s=[20,40,80]'" in told
    assert "the most it serves: " in told and "workload.dataset=trace_lengths study.name=log_at_once" in told


BROKEN = {
    "empty": ("", "is empty; expected a log of requests"),
    "json list": ("[{}]", "is a JSON list; expected a JSON object per line"),
    "unknown object": ('{"a": 1}', r"line 1: has neither input_length .* only a; expected"),
    "cut line": (
        '{"input_length": 1, "output_length": 2}\n{"input_le',
        r"line 2: is no JSON .*Mend or remove",
    ),
    "no object": (
        '{"input_length": 1, "output_length": 2}\n[]',
        r"line 2: is a list; expected a JSON object",
    ),
    "no columns": ("a,b\n1,2", r"has the columns a, b; expected the tokens"),
    "no rows": ("input_tokens,output_tokens\n", "has one line; expected columns and requests below"),
    "request alone": (
        '{"body": {"messages": [{"role": "user", "content": "Hi"}]}}',
        r"line 1: is a request without the usage of its answer; .*workload.dataset=custom",
    ),
    "negative": ("input_tokens,output_tokens\n-1,2", r"line 2: the tokens of its prompt are '-1'; expected"),
    "fraction": (
        "input_tokens,output_tokens\n1,2.5",
        r"line 2: the tokens of its answer are '2.5'; expected",
    ),
    "word": ("input_tokens,output_tokens\n1,many", r"line 2: the tokens of its answer are 'many'; expected"),
    "time": ("time,input_tokens,output_tokens\nsoon,1,2", r"line 2: its time is 'soon'; expected a number"),
    "open quote": (
        'note,input_tokens,output_tokens\na,1,2\n"b,1,2\nc,1,2',
        r"line 3: cannot be split into cells .*each double quote closed.*Mend the line",
    ),
    "some times": ("time,input_tokens,output_tokens\n1,1,2\n,1,2", r"1 of 2 requests have no time"),
    "unanswered": ("input_tokens,output_tokens\n1,0", r"none of 1 request has tokens in and out"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_log_is_refused_with_its_line_and_what_to_do(case: str, tmp_path: Path) -> None:
    text, message = BROKEN[case]
    with pytest.raises(ConfigError, match=message):
        logs.read(written(tmp_path, text))


def test_log_that_is_no_text_or_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(b"\x1f\x8b\xff\xfe")
    with pytest.raises(ConfigError, match=r"is no text in UTF-8 .*Unpack or convert it"):
        logs.read(path)
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file"):
        logs.read(tmp_path / "nothing.csv")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory"):
        logs.read(tmp_path)


def test_command_says_what_is_in_the_log_and_writes_workload_that_plans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = written(tmp_path, LAYOUTS["openai"])
    assert cli.main(["traffic", str(log), "--output", "mine", "--name", "chat"]) == cli.OK
    said = capsys.readouterr().out
    assert "3 requests (openai)" in said and "28.4 % of all prompt tokens came before" in said
    printed = [
        line.partition("python -m sweeper ")[2] for line in said.splitlines() if "+experiment=tune" in line
    ]
    named = [word for line in printed for word in shlex.split(line) if word.startswith("study.name=")]
    # Another load is another study.
    assert named[:3] == ["study.name=chat", "study.name=chat_fast", "study.name=chat_rates"]
    assert len(set(named)) == len(named) == len(printed)
    sweep = ("--config-dir", "mine", "workload=chat", "platform=simulated", "executor=inline")
    more = ("space.knobs.max_num_seqs=[64]", "knobs.tensor_parallel_size=1", "study.name=chat")
    assert cli.main([*sweep, *more]) == cli.OK


def test_log_and_folder_of_any_name_give_a_workload_and_commands_that_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "our log: #2 (ü).csv"
    log.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,100,10\n1,200,20\n")
    folder = tmp_path / "made #1: x"
    assert cli.main(["traffic", str(log), "--output", str(folder)]) == 0
    command = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("replay it:"))
    words = shlex.split(command.partition("python -m sweeper ")[2])
    assert cli.main([*words, "platform=simulated", "plan=true", f"study.outputs={tmp_path}/o"]) == 0
    assert "our_log_2" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a/b", "../a", "", "a b", "-a"])
def test_name_that_can_name_no_workload_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.csv"
    log.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,100,10\n")
    assert cli.main(["traffic", str(log), "--output", str(tmp_path / "made"), f"--name={name}"]) == 2
    assert f"--name: '{name}' cannot name a workload" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("parts", [1, 1_000, 1_000_000, 1_000_000_000])
def test_times_are_read_in_seconds_or_any_part_of_them(parts: int, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    first, second = 1_715_000_000 * parts, 1_715_000_004 * parts
    log.write_text(f"time,input_tokens,output_tokens\n{first},100,10\n{second},200,20\n")
    assert traffic.summarize(logs.read(log)).span_s == pytest.approx(4)

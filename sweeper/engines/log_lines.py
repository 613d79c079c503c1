"""The text of a log once everything that loggers add is taken off its lines. Pure reading, no I/O.

An engine's line reaches us through its own logger and those of Ray, torch, a container's runtime, a batch
system or a site: each adds a colour, a name, a time, a level. They are peeled off from the left, in any order
and number; unknown prefixes stay, and readers look for what they need anywhere in a line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a log.

    Attributes:
        text: Without prefixes and colours; its own indentation is kept.
        level: The level that a logger gave it, in capitals; None where none did.
        written: The line as it was written, without colours.
    """

    text: str
    level: str | None = None
    written: str = ""

    @property
    def is_chatter(self) -> bool:
        """Whether its logger itself says that nothing has failed."""
        return self.level in ("TRACE", "DEBUG", "INFO", "NOTICE", "WARNING", "WARN")

    @property
    def says_anything(self) -> bool:
        """Whether it is more than blanks, underlines and the noise that a dying program makes."""
        return bool(self.text.strip(" \t~^-=*.|")) and _NOISE.search(self.text) is None


def read_lines(log: str) -> list[Line]:
    """Take the lines of a log apart, blank ones left out; what a progress bar rewrote is several."""
    raws = (raw for raw in re.split(r"\r\n|[\n\r]", log) if raw.strip())
    return [line for raw in raws for line in _read(raw, depth=0)]


def last_that_says_anything(log: str) -> str | None:
    """The last line that is more than noise, without colours; None where there is none."""
    lines = read_lines(log)
    found = next((line for line in reversed(lines) if line.says_anything), None)
    if found is None:
        found = next((line for line in reversed(lines) if line.text.strip()), None)
    return None if found is None else found.written.strip()


# The escape, or what loggers write in its place: ^[ (cat -v), #033 (syslog), \u001b, \x1b (JSON, repr).
_ESCAPE = r"(?:\x1b|\^\[|#033|\\u001[bB]|\\x1[bB]|\\033|\\e)"
_COLOUR = re.compile(rf"{_ESCAPE}\[[0-9;:?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]")

_LEVEL = r"(?:TRACE|DEBUG|INFO|NOTICE|WARNING|WARN|ERROR|CRITICAL|FATAL)"
_DAY = r"\d{4}[-/]\d\d[-/]\d\d"
_CLOCK = r"\d\d:\d\d:\d\d(?:[.,]\d+)?"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"

# Each takes one blank after it at most: what is indented stays so.
_PREFIX = re.compile(
    "|".join(
        f"(?:{pattern})"
        for pattern in (
            # Kubernetes' CRI.
            rf"{_DAY}T{_CLOCK}(?:Z|[+-]\d\d:?\d\d)?\s(?:stdout|stderr)\s[FP]\s?",
            # A time, in brackets or not, of a site's logger, TGI, docker logs -t, Slurm.
            rf"[\[(<]?{_DAY}[T ]{_CLOCK}\s?(?:Z|UTC|[+-]\d\d:?\d\d)?[\])>]?\s?(?:[:|-]\s?)?",
            rf"[\[(]{_CLOCK}[\])]\s?",
            # syslog, journald.
            rf"(?:<\d+>)?{_MONTH}\s+\d+ {_CLOCK} \S+ [\w./@()-]+(?:\[\d+\])?:\s?",
            # dmesg.
            r"(?:<\d+>)?\[\s*\d+\.\d+\]\s?",
            rf"\[\w{{3}} {_MONTH}\s+\d+ {_CLOCK}(?: \d{{4}})?\]\s?",
            # Processes of vLLM and Ray: (EngineCore_DP0 pid=7), (RayWorkerWrapper pid=7, ip=10.0.0.1)
            r"\([^()]*\b(?:pid|ip|actor_id)=[^()]*\)\s?",
            r"\((?:raylet|autoscaler|gcs_server)[^()]*\)\s?",
            # Ranks of torchrun, srun -l, mpirun.
            r"\[(?:default|rank|Rank|trainer|worker)\s?\d+\]:?\s?",
            r"\[\d+,\s?\d+\](?:<std(?:out|err)>:?)?\s?",
            r"\s{0,3}\d{1,4}: ",
            # Containers: docker compose, kubectl logs --prefix, Ray Serve.
            r"[\w.-]{1,60}\s+\| ",
            r"\[pod/[^\]]+\]\s?",
            # TGI's target, after its level.
            r"(?:[\w-]+: )?text_generation_\w+(?:::\w+)*: (?:[\w/.-]+\.rs:\d+: )?",
        )
    )
)
_LEVELS = tuple(
    re.compile(pattern)
    for pattern in (
        # vLLM: INFO 11-27 02:05:38 [core.py:133], and without the brackets before 0.8.
        rf"(?P<level>{_LEVEL})\s+[\d/-]+ {_CLOCK}\s+(?:\[[^\]]*\]|[\w./]+:\d+\])\s?",
        # glog, as torch writes it: [E1001 16:06:04.537 ProcessGroupNCCL.cpp:607], [E Logger.cpp:475].
        rf"\[?(?P<letter>[TDIWEF])(?:\d{{4}}(?:\d{{4}})? {_CLOCK})?\s+(?:\d+\s+)?[\w./+-]+:\d+\]\s?",
        # uvicorn and others: ERROR:    text; [ERROR] text; ERROR - text; level=error msg=.
        rf"(?P<level>{_LEVEL}):\s+(?:[\w.]+:)?",
        rf"[\[(<](?P<level>{_LEVEL})[\])>]:?\s?",
        rf"(?P<level>{_LEVEL})\s+(?:[|-] ?|(?=[\w.-]+: )|(?=text_generation))",
        rf"(?P<level>{_LEVEL})\s(?=\S)",
        r"level=(?P<small>\w+)\s(?:msg=)?",
        # RCCL, whose warnings are what it fails of.
        r"\S+:\d+:\d+ \[\d+\] (?P<rccl>N?R?CCL (?:INFO|TRACE|WARN|ERROR)) ",
    )
)
_LETTERS = {"T": "TRACE", "D": "DEBUG", "I": "INFO", "W": "WARNING", "E": "ERROR", "F": "FATAL"}
# A level further to the right, behind an unknown prefix.
_LEVEL_INSIDE = re.compile(
    rf"^.{{0,120}}?(?:^|[\s\])|:>])(?P<level>{_LEVEL})\s+\d\d-\d\d {_CLOCK}\s+(?:\[[^\]]*\]|[\w./]+:\d+\])\s?"
)

# Keys under which loggers that write JSON keep the line, and its level.
_MESSAGE_KEYS = ("log", "message", "msg", "MESSAGE", "text", "event", "body")
_LEVEL_KEYS = ("level", "severity", "levelname", "lvl")

# What a program that dies, or a library in it, says besides why: nothing of it is a cause.
_NOISE = re.compile(
    r"resource_tracker|warnings\.warn\(|\b\w*Warning: "
    r"|leaked (?:semaphore|shared_memory|instance|type|function|\d)"
    r"|nanobind|- \.\.\. skipped|destroy_process_group|Traceback \(most recent call last\)"
    r"|^\s*File \"[^\"]*\", line \d"
    r"|^\s*During handling of the above|^\s*The above exception was the direct|^\s*frame #\d+"
    r"|^\s*#\d+ 0x|^\s*@\s+0x|\(\+0x[0-9a-f]+\) ?\[|^Exception raised from |^Process \S+:$"
    r"|Shutting down|Waiting for application shutdown|[Aa]pplication shutdown complete"
    r"|Finished server process"
    r"|\[shutdown\]|Application startup failed|For debugging consider passing|Compile with `TORCH_USE"
    r"|kernel errors might be asynchronously|stacktrace below might be incorrect"
    r"|For further information visit"
    r"|Device-side assertion tracking|_DISABLE_ADDR2LINE|Search for `|most recent call first"
    r"|^\s*<no Python frame>"
    r"|^Extension modules: |^Thread 0x|^Current thread 0x|^\(?core dumped\)?$|^usage: |^Usage: |try '--help'"
    r"|at interpreter shutdown|without an active exception|[Tt]erminating the remaining|Shutting down shards"
    r"|Exception ignored in|^\s*$|closing signal SIGTERM|Killing \d+ local|^\s+raise |^\s+return |^\s+self\.",
)


def _read(raw: str, *, depth: int) -> Iterator[Line]:
    text = _COLOUR.sub("", raw)
    start = text.lstrip()
    if start.startswith("{") and depth < 3:
        inner = _from_json(start)
        if inner is not None:
            level, message = inner
            for piece in re.split(r"\r\n|[\n\r]", message.rstrip("\n")):
                for line in _read(piece, depth=depth + 1):
                    yield line if line.level or level is None else replace(line, level=level)
            return
    written = text
    text, found = _peeled(text.rstrip())
    if depth < 3 and text.startswith("{") and text != raw and _from_json(text) is not None:
        yield from _read(text, depth=depth + 1)
        return
    yield Line(text=text, level=found, written=written)


def _peeled(text: str) -> tuple[str, str | None]:
    """Take prefixes off from the left until none is left; return the rest, and the last level among them."""
    level = None
    inside = _LEVEL_INSIDE.match(text)
    if inside:
        level, text = inside["level"], text[inside.end() :]
    for _ in range(12):
        prefix = _PREFIX.match(text)
        if prefix and prefix.end():
            text = text[prefix.end() :]
            continue
        leveled = next((match for pattern in _LEVELS if (match := pattern.match(text))), None)
        if leveled is None:
            break
        level, text = _level_of(leveled), text[leveled.end() :]
    return text, level


def _level_of(match: re.Match[str]) -> str | None:
    groups = match.groupdict()
    if groups.get("letter"):
        return _LETTERS[groups["letter"]]
    if groups.get("rccl"):
        return "ERROR" if groups["rccl"].endswith(("WARN", "ERROR")) else "INFO"
    word = groups.get("level") or groups.get("small") or ""
    return word.upper() or None


def _from_json(text: str) -> tuple[str | None, str] | None:
    """Level and message of a line that a logger wrote as JSON; None where it is no such line."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, Mapping):
        return None
    fields = content.get("fields")
    places = (content, fields) if isinstance(fields, Mapping) else (content,)
    told = [place[key] for place in places for key in _MESSAGE_KEYS if isinstance(place.get(key), str)]
    levels = [place[key] for place in places for key in _LEVEL_KEYS if isinstance(place.get(key), str)]
    return (levels[0].upper() if levels else None, told[0]) if told else None

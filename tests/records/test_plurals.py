"""Numbers with their nouns: the one function for them, and that every text of the product asks it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper.records.plurals import amount, percent

ROOT = Path(__file__).resolve().parents[2]
COUNTED = (
    *(
        "trial",
        "setting",
        "device",
        "GPU",
        "node",
        "prompt",
        "request",
        "user",
        "pair",
        "process",
        "load point",
    ),
    *(
        "measurement",
        "server",
        "core",
        "message",
        "conversation",
        "turn",
        "client run",
        "engine start",
        "column",
    ),
)
"""What texts count. Lengths in tokens and the like are seldom one, and verbs look like them (``it runs``)."""

NEVER_ONE = {
    ("sweeper/records/load.py", "users"),  # it says "1 user" itself
    ("sweeper/clients/locustfile.py", "messages"),  # a file that runs where nothing of ours can be imported
    ("sweeper/engines/live_scheduler.py", "requests"),  # the same
    ("sweeper/simulation/run.py", "requests"),
    ("sweeper/clients/vllm_offline.py", "requests"),  # of another number than was sent
    ("sweeper/workload/conversation_files.py", "turns"),
    ("sweeper/workload/conversation_files.py", "conversations"),
    ("sweeper/workload/conversations.py", "turns"),
    ("analysis/leaderboard_text.py", "settings"),  # ties: two at least
}


def _plural(noun: str) -> str:
    return amount(2, noun).removeprefix("2 ")


def _texts(tree: ast.AST) -> Iterator[tuple[ast.FormattedValue, str]]:
    """Yield each value of an f-string with the text behind it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                    yield value, str(text.value)


def unasked(path: Path) -> list[tuple[str, str]]:
    """Return the plurals of a file that stand behind a value whatever it is."""
    behind = re.compile(rf" ({'|'.join(map(_plural, COUNTED))})\b(?!/| per )")
    found = []
    for value, text in _texts(ast.parse(path.read_text(encoding="utf-8"))):
        match = behind.match(text)
        spec = "" if value.format_spec is None else ast.unparse(value.format_spec)
        # A number with decimals is a mean; of a constant it is known how many it is.
        is_constant = isinstance(value.value, ast.Name) and value.value.id.lstrip("_").isupper()
        if match and "." not in spec and not is_constant:
            found.append((str(path.relative_to(ROOT)), match[1]))
    return found


def test_no_text_has_a_plural_behind_a_number_that_may_be_one() -> None:
    files = [path for top in ("sweeper", "analysis") for path in sorted((ROOT / top).rglob("*.py"))]
    found = {one for path in files for one in unasked(path)}
    assert found - NEVER_ONE == set(), "write amount(count, 'noun') from sweeper.records.plurals"
    assert NEVER_ONE - found == set(), "these are mended: take them off the list"


def attached_percents(path: Path) -> list[str]:
    """Return the values of a file that are written with a percent sign right behind the number."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    values = [node for node in ast.walk(tree) if isinstance(node, ast.FormattedValue)]
    specs = [
        (ast.unparse(value.value), ast.unparse(value.format_spec)) for value in values if value.format_spec
    ]
    signs = [ast.unparse(value.value) for value, text in _texts(tree) if text.startswith("%")]
    return [name for name, spec in specs if spec.rstrip("'\"").endswith("%")] + signs


def test_percent_signs_stand_a_space_behind_their_number() -> None:
    files = [
        path for top in ("sweeper", "analysis", "benchmarks") for path in sorted((ROOT / top).rglob("*.py"))
    ]
    found = {(str(path.relative_to(ROOT)), name) for path in files for name in attached_percents(path)}
    # Where it is written, and a condition as it is given on a command line.
    here = "sweeper/records/plurals.py"
    known = {(here, "share"), (here, "spec"), ("analysis/regression.py", "number")}
    assert found == known, "write percent(share) from sweeper.records.plurals"


@pytest.mark.parametrize(
    ("share", "spec", "expected"),
    [(0.17, ".0", "17 %"), (0.004, "+.1", "+0.4 %"), (-12.5, "+,.0", "-1,250 %")],
)
def test_share_is_written_in_percent(share: float, spec: str, expected: str) -> None:
    assert percent(share, spec) == expected


def test_scan_finds_what_it_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.records.test_plurals.ROOT", tmp_path)
    bad = tmp_path / "bad.py"
    bad.write_text(
        'print(f"{n} trials, {x:.2f} requests, {MOST} devices, {r} requests/s, {len(a)} load points")\n'
    )
    assert unasked(bad) == [("bad.py", "trials"), ("bad.py", "load points")]


@pytest.mark.parametrize(
    ("count", "noun", "spec", "expected"),
    [
        (0, "trial", "", "0 trials"),
        (1, "trial", "", "1 trial"),
        (1.0, "GPU", "g", "1 GPU"),
        (0.5, "GPU", "g", "0.5 GPUs"),
        (2, "load point", "", "2 load points"),
        (3, "process", "", "3 processes"),
        (3, "study", "", "3 studies"),
        (3, "day", "", "3 days"),
        (1234, "prompt", ",", "1,234 prompts"),
    ],
)
def test_noun_goes_with_its_number(count: float, noun: str, spec: str, expected: str) -> None:
    assert amount(count, noun, spec) == expected

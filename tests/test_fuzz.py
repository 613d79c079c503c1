"""Whatever is given, damaged or absurd, is answered: numbers, or one sentence; never a traceback.

The plain run tries a few hundred things, the same ones each time. For hours of new ones:

    SWEEPER_FUZZ_EXAMPLES=5000 python -m pytest tests/test_fuzz.py
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from analysis.study import Study
from sweeper import cli
from sweeper.config.schema import key_names
from sweeper.errors import SweeperError
from sweeper.models import config_json
from sweeper.records import EngineSpec, LoadPoint, Model, ModelShape, Platform, TrialSpec
from sweeper.store.store import Store
from tests.store.test_store import complete, with_knobs

EXAMPLES = int(os.environ.get("SWEEPER_FUZZ_EXAMPLES", "0"))
"""How many things each test tries, all new; 0 tries a few, and the same ones each time."""

EXIT_CODES = {cli.OK, cli.MISTAKE, cli.AT_RISK}
"""What a plan can end with."""

# Where a run would leave this machine or this folder: a cluster, another machine's devices, a file to write.
KEPT = ("executor", "platform", "study.outputs", "study.results", "plan")

A_PLAN = ["platform=simulated", "executor=inline", "plan=true", "study.outputs=outputs"]

BASE: dict[str, Any] = {
    "study": {"experiment": "mine", "question": "Why?", "source": "here", "isolation": "shared"},
    "engine": {"release": "0.6.2", "start_timeout_s": 100.0, "prefix": ["numactl"]},
    "model": {"name": "a/b", "path": "a/b", "dtype": "bfloat16"},
    "workload": {
        "dataset": "random",
        "num_prompts": [10, 20],
        "input_len": 64,
        "output_len": 8,
        "request_rate_per_s": [1, 2.5, None],
        "range_ratio": 0.5,
        "points": [{"input_len": 32}, {"num_prompts": 5, "ignore_eos": True}],
    },
    "knobs": {"tensor_parallel_size": 4, "max_num_seqs": 64, "VLLM_USE_TRITON_FLASH_ATTN": 0},
    "space": {
        "series": {"a": {"label": "A", "knobs": {"block_size": 16}}, "b": {"run": None}},
        "knobs": {"max_num_batched_tokens": {"low": 1024, "high": 4096, "step": 1024}, "swap_space": [1, 2]},
        "rules": ["max_num_batched_tokens >= max_num_seqs"],
    },
    "search": {"trials": 3, "seed": 1},
    "objective": {"throughput": {"metric": "p99_ttft_ms", "direction": "minimize"}},
    "calibration": {"gemm_frac": 0.5},
    "repeats": 1,
    "runs_per_start": 2,
}

DESCRIPTION: dict[str, Any] = {
    "schema_version": 1,
    "experiment": "mine",
    "question": "Why?",
    "source": "here",
    "platform": "simulated",
    "series": {"a": {"label": "A", "published": "p", "run": "fresh", "engine": "vllm", "order": 0}},
    "objectives": [{"metric": "p99_ttft_ms", "direction": "minimize", "request_rate_per_s": 16.0}],
    "results": None,
}

MODEL: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 256,
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "fp8"},
}

SHAPE = ModelShape(
    layers=2, hidden=64, intermediate=128, heads=4, kv_heads=2, head_dim=16, vocab=1000, max_positions=256
)
SPEC = TrialSpec(
    study="test",
    folder="trial",
    series=("a",),
    assignment={},
    load_points=(LoadPoint(dataset="random", num_prompts=20, input_len=64, output_len=16),),
    engine=EngineSpec(kind="simulated", release="0.6.2"),
    model=Model(name="a/b", path="a/b", shape=SHAPE),
    platform=Platform.SIMULATED,
    devices_wanted=1,
)

ODD_TEXTS = (
    *("", " ", "???", "null", "é", "💥", "\x00", "\u202e", "a" * 5000, "../x", "-1", "1e999", "0x10", "1_0"),
    *("${study.name}", "${", "${}", "${nowhere.at.all}", "${oc.env:NO_SUCH_VARIABLE}", "${oc.env:HOME}"),
    *("${study}", "${study.question}", "${oc.decode:'['}", "${hydra:runtime.cwd}", "${a:${b}}", "\\${x}"),
    *(
        "choice()",
        "choice(1,2)",
        "choice(a,[1])",
        "range(0,10,0)",
        "range(5,1)",
        "range(1,9)",
        "range(1,2,-1)",
    ),
    *(
        "interval(1,2)",
        "interval(2,1)",
        "tag(log,interval(0,1))",
        "int(interval(1,9))",
        "glob(*)",
        "1,2",
        "1,",
    ),
    *(
        "shuffle(1,2)",
        "sort(3,1)",
        "extend_list(1)",
        "range(0,1e18)",
        "interval(-1e400,1)",
        "float(choice(1))",
    ),
    *(
        "a >= 1",
        "1 // 0",
        "9 ** 9",
        "(" * 300,
        "not",
        "'a' < 1",
        "lambda: 1",
        "max_num_seqs in 3",
        "-'a' == 1",
    ),
    *(
        "[1,2",
        "{a: 1}",
        "{a:{b:[1]}}",
        "'",
        '"',
        "#",
        "!!python/object:os.system x",
        "&a *a",
        "@",
        "%",
        "=",
        "a=b",
    ),
)

odd_scalars = st.one_of(
    st.sampled_from([None, True, False, 0, -1, 10**30, -(10**400), 1e308, -0.0, float("nan"), float("inf")]),
    st.sampled_from(ODD_TEXTS),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
)
odd_values = st.recursive(
    odd_scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["low", "high", "step", "log", "type", "choices"]), odd_scalars),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=6,
)
odd_texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=12), odd_values.map(str))


def budget(few: int) -> Any:
    """So many examples in the plain run, the same ones each time; as many new ones as are asked for."""
    return settings(
        max_examples=EXAMPLES or few,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


def _paths(node: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        yield (*above, name)
        yield from _paths(value, (*above, name))


PATHS = tuple(_paths(BASE))


@pytest.fixture(autouse=True, scope="module")
def elsewhere() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("conf", "experiment").mkdir(parents=True)
        yield


def answered(arguments: list[str]) -> None:
    """See that a plan ends as documented, and that its last word is no defect."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = cli.main(arguments)
    told = errors.getvalue()
    assert "a defect of this program" not in told and "Traceback" not in out.getvalue() + told, told
    assert code in EXIT_CODES
    assert (code == cli.OK) == (not told.strip()), told
    assert code == cli.OK or told.startswith("error: "), told
    assert not list(Path().glob("outputs/*/measurements/*"))


KEYS = tuple(key for key in key_names() if not key.startswith(KEPT))


@budget(12)
@given(
    overrides=st.lists(
        st.tuples(
            st.sampled_from(["", "+", "++", "~"]),
            st.one_of(
                st.sampled_from(KEYS),
                st.sampled_from(["knobs.max_num_seqs", "space.knobs.max_num_seqs", "objective.x.metric"]),
                st.sampled_from(
                    ["space.series.a.knobs.block_size", "calibration.x", "space.knobs.", "knobs"]
                ),
                odd_texts,
            ),
            odd_texts,
        ),
        min_size=1,
        max_size=3,
    )
)
@example(overrides=[("", "space.knobs.max_num_seqs", "range(0,10,0)")])
@example(overrides=[("", "space.rules", "['1 // 0']")])
def test_no_override_ends_in_traceback(overrides: list[tuple[str, str, str]]) -> None:
    given_now = [f"{sign}{key}={value}" for sign, key, value in overrides]
    answered(["workload=random", *A_PLAN, *(text for text in given_now if not _is_kept(text))])


def _is_kept(text: str) -> bool:
    """Tell what is a command, an option, or would leave this folder."""
    key = text.lstrip("+~")
    return text.startswith("-") or key.startswith((*KEPT, "hydra"))


@budget(15)
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(PATHS), st.sampled_from(["replace", "remove", "rename", "wrap"]), odd_values
        ),
        min_size=1,
        max_size=3,
    )
)
@example(changes=[(("engine", "prefix", 0), "replace", {"numactl": None})])
@example(changes=[(("calibration", "gemm_frac"), "replace", [])])
def test_no_file_of_users_own_ends_in_traceback(changes: list[tuple[Any, str, Any]]) -> None:
    content = copy.deepcopy(BASE)
    for path, kind, value in changes:
        _change(content, path, kind, value)
    with contextlib.suppress(yaml.YAMLError, ValueError):
        text = yaml.safe_dump(content, allow_unicode=True)
        _plan_of(f"# @package _global_\n{text}".encode(errors="replace"))


def _change(content: Any, path: tuple[str | int, ...], kind: str, value: Any) -> None:
    try:
        for name in path[:-1]:
            content = content[name]
        there = content[path[-1]]
        if kind == "remove":
            del content[path[-1]]
        elif kind == "rename":
            content[value if isinstance(value, str | int | float | bool) else "x"] = content.pop(path[-1])
        else:
            content[path[-1]] = [there] if kind == "wrap" else value
    except (KeyError, IndexError, TypeError, AttributeError):
        return  # an earlier change took the place away


@budget(12)
@given(
    place=st.floats(0, 1),
    removed=st.integers(0, 20),
    put=st.one_of(odd_texts, st.sampled_from(":{}[]-*&!|>%@`,\t")),
)
@example(place=0.05882201413362843, removed=11, put="#")
def test_no_broken_yaml_ends_in_traceback(place: float, removed: int, put: str) -> None:
    text = yaml.safe_dump(BASE)
    at = int(place * len(text))
    broken = text[:at] + put + text[at + removed :]
    _plan_of(f"# @package _global_\n{broken}".encode(errors="replace"))


@budget(8)
@given(content=st.binary(max_size=60))
def test_no_foreign_file_in_place_of_yaml_ends_in_traceback(content: bytes) -> None:
    _plan_of(b"# @package _global_\n" + content)


def _plan_of(content: bytes) -> None:
    Path("conf", "experiment", "mine.yaml").write_bytes(content)
    answered(["--config-dir", "conf", "+experiment=mine", *A_PLAN])


# ---- files of a study ----

damages = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "zeros"]),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=3,
)


def damaged(content: bytes, how: list[tuple[str, float, bytes]]) -> bytes:
    """Do to a file what disks, copies and editors do."""
    for kind, place, new in how:
        at = int(place * len(content))
        if kind == "cut":
            content = content[:at]
        elif kind == "insert":
            content = content[:at] + new + content[at:]
        else:
            put = bytes(len(new)) if kind == "zeros" else new
            content = content[:at] + put + content[at + len(put) :]
    return content


@cache
def stored() -> tuple[tuple[str, bytes], ...]:
    """Name and content of the parts of a study with two trials."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for seqs in (64, 128):
            store.append(complete(with_knobs(SPEC, max_num_seqs=seqs)), queued_s=0.0, knobs=["max_num_seqs"])
        paths = [Path(part) for part in store.parts()]
        return tuple((path.name, path.read_bytes()) for path in paths)


@budget(60)
@given(how=damages)
def test_damaged_part_is_set_aside_and_others_are_read(
    how: list[tuple[str, float, bytes]],
) -> None:
    (name, good), (broken_name, whole) = stored()
    broken = damaged(whole, how)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        parts = Path(folder, "measurements")
        parts.mkdir()
        (parts / name).write_bytes(good)
        (parts / broken_name).write_bytes(broken)
        with contextlib.suppress(SweeperError):
            store.read()
        moved = store.set_aside_unreadable()
        assert (parts / name).read_bytes() == good
        assert (Path(moved[0]) if moved else parts / broken_name).read_bytes() == broken
        frame = store.read()
        assert len(store.finished()) == frame["trial_key"].nunique() == (1 if moved else 2)
        if not moved:
            assert frame["request_throughput_per_s"].tolist() == [10.5, 10.5]


@budget(60)
@given(how=damages)
@example(how=[("flip", 0.0, b"[]")])
def test_damaged_description_is_read_or_refused(how: list[tuple[str, float, bytes]]) -> None:
    _load_with(damaged(json.dumps(DESCRIPTION).encode(), how))


@budget(60)
@given(
    path=st.sampled_from(tuple(_paths(DESCRIPTION))),
    kind=st.sampled_from(["replace", "remove", "rename"]),
    value=odd_values,
)
def test_odd_description_is_read_or_refused(path: Any, kind: str, value: Any) -> None:
    about = copy.deepcopy(DESCRIPTION)
    _change(about, path, kind, value)
    with contextlib.suppress(TypeError, ValueError):
        _load_with(json.dumps(about, default=str).encode())


def _load_with(description: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "measurements").mkdir()
        name, content = stored()[0]
        Path(folder, "measurements", name).write_bytes(content)
        Path(folder, "study.json").write_bytes(description)
        try:
            study = Study.load(Path(folder))
        except SweeperError as exc:
            assert "study.json" in str(exc)
        else:
            assert study.name == "test"


@budget(60)
@given(
    path=st.sampled_from(tuple(_paths(MODEL))),
    kind=st.sampled_from(["replace", "remove", "rename"]),
    value=odd_values,
)
def test_odd_model_is_read_or_refused(path: Any, kind: str, value: Any) -> None:
    content = copy.deepcopy(MODEL)
    _change(content, path, kind, value)
    try:
        text = json.dumps(content, default=str)
    except (TypeError, ValueError):
        return
    Path("config.json").write_text(text, encoding="utf-8")
    with contextlib.suppress(SweeperError):
        assert config_json.read(Path("config.json")).shape.layers > 0

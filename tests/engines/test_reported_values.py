"""Reading what Python and JSON print of values, whole and cut off."""

from __future__ import annotations

import math

import pytest

from sweeper.engines.reported_values import Enumerated, Named, Unreadable, is_cut_off, parse, parse_pairs


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"level":3,"cudagraph_mode":[2,1],"x":null}', {"level": 3, "cudagraph_mode": [2, 1], "x": None}),
        (
            "{'mode': <CompilationMode.NONE: 0>, 'x': None, 'y': (2, 1)}",
            {"mode": Enumerated(name="NONE", value=0), "x": None, "y": [2, 1]},
        ),
        (
            "<CUDAGraphMode.FULL_AND_PIECEWISE: (2, 1)>",
            Enumerated(name="FULL_AND_PIECEWISE", value=[2, 1]),
        ),
        ("LoadFormat.AUTO", Enumerated(name="AUTO")),
        (
            "SpeculativeConfig(method='ngram', model=None, n=2)",
            Named(type_name="SpeculativeConfig", fields={"method": "ngram", "model": None, "n": 2}),
        ),
        (
            "Namespace(a=PassConfig(b=[1, 2], c={'d': True}), e='f, g=h')",
            Named(
                type_name="Namespace",
                fields={
                    "a": Named(type_name="PassConfig", fields={"b": [1, 2], "c": {"d": True}}),
                    "e": "f, g=h",
                },
            ),
        ),
        ("Config()", Named(type_name="Config", fields={})),
        ("mappingproxy({'image': 2})", {"image": 2}),
        ("PosixPath('/data/a b')", "/data/a b"),
        ("torch.bfloat16", "bfloat16"),
        ("/data/models/a (b)", "/data/models/a (b)"),
        ("'it\\'s {not} [a] list'", "it's {not} [a] list"),
        ('"it\'s"', "it's"),
        ("-1e-05", -1e-05),
        ("inf", math.inf),
        ("{1, 2}", [1, 2]),
        ("{}", {}),
        ("()", []),
        ("1.2.3", "1.2.3"),
        ("8GiB", "8GiB"),
        ("<function rope at 0x7f10>", Unreadable(text="<function rope at 0x7f10>")),
        ("[<class 'a.B'>, 1]", [Unreadable(text="<class 'a.B'>"), 1]),
        ("<Config {'a': <X.Y: 1>}>", Unreadable(text="<Config {'a': <X.Y: 1>}>")),
        ("", Unreadable(text="")),
    ],
)
def test_value_keeps_its_structure(text: str, value: object) -> None:
    assert parse(text) == value


def test_no_number_is_read_as_one() -> None:
    found = parse("{'a': nan}")
    assert isinstance(found, dict)
    assert math.isnan(found["a"])


def test_pairs_end_at_next_name_and_not_at_comma_or_blank() -> None:
    text = "model='/a, b=c', dir=/d e/f, s=S(m='n', k=2), d=torch.float16, c={\"l\":3, \"x\":{}}, end=auto"
    assert parse_pairs(text) == {
        "model": "/a, b=c",
        "dir": "/d e/f",
        "s": Named(type_name="S", fields={"m": "n", "k": 2}),
        "d": "float16",
        "c": {"l": 3, "x": {}},
        "end": "auto",
    }
    assert not is_cut_off(text)


def test_bracket_that_was_opened_before_ends_pairs() -> None:
    assert parse_pairs("host=None, sizes=[512], n=256), other=1") == {"host": None, "sizes": [512], "n": 256}


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("a=1, c={'m': <X.Y: 1>, 'z': No", {"a": 1, "c": {"m": Enumerated(name="Y", value=1)}}),
        ("a=1, s=S(m='n', k=25", {"a": 1, "s": Named(type_name="S", fields={"m": "n"})}),
        ("a=1, b='not clos", {"a": 1}),
        ("a=1, l=[1, 2", {"a": 1}),
        ("a=1, f=<function f at", {"a": 1}),
    ],
)
def test_of_line_that_is_cut_off_what_stands_whole_is_read(text: str, whole: object) -> None:
    # The last word before the cut may be half a number, so it is left out.
    assert parse_pairs(text) == whole
    assert is_cut_off(text)


def test_any_beginning_and_any_part_of_line_is_read_without_error() -> None:
    line = (
        "s=S(m='n', p=[<A.B: (1, 2)>]), c={'x': P('/y'), \"z\": [{}, ()]}, f=<function f at 0x1>, q='\\'\\\\'"
    )
    for start in range(len(line)):
        parse(line[start:])
        parse_pairs(line[:start])
    assert isinstance(parse("[" * 5000), Unreadable)

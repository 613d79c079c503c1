"""Which settings differ in one knob, and in which kernels, beside the plain definition."""

from __future__ import annotations

import itertools
import random

import pandas as pd
import pytest

from analysis.kernel_neighbours import UNKNOWN, WORDS, Neighbours, Setting

KNOBS = ("knob.a", "knob.b", "knob.c")


def setting(number: int, chances: random.Random) -> Setting:
    return Setting(
        name=f"s{number}",
        values={"model": chances.choice("mn"), **{knob: chances.choice("123") for knob in KNOBS}},
        kernels=tuple(chances.choice((UNKNOWN, "x", "x", "y")) for _ in WORDS),
    )


def by_definition(settings: list[Setting]) -> list[dict[str, str]]:
    """Look at every pair."""
    found = []
    for one, other in itertools.combinations(settings, 2):
        differs = [name for name in one.values if one.values[name] != other.values[name]]
        if len(differs) != 1 or differs[0] not in KNOBS:
            continue
        for words, first, second in zip(WORDS.values(), one.kernels, other.kernels, strict=True):
            if first != second and UNKNOWN not in (first, second):
                found.append(
                    {
                        "knob": differs[0].removeprefix("knob."),
                        "one": one.values[differs[0]],
                        "other": other.values[differs[0]],
                        "kernel": words,
                        "first": first,
                        "second": second,
                        "settings": f"{one.name} and {other.name}",
                    }
                )
    return found


@pytest.mark.parametrize("seed", range(20))
def test_differences_are_those_of_every_pair(seed: int) -> None:
    chances = random.Random(seed)
    settings = [setting(number, chances) for number in range(chances.randint(0, 60))]
    expected = by_definition(settings)
    neighbours = Neighbours(settings)
    assert list(neighbours.differences()) == expected
    assert neighbours.count() == len(expected)
    assert expected or len(settings) < 20


def test_thousands_with_the_same_kernels_are_not_paired() -> None:
    rows = pd.DataFrame(
        {
            "setting": [f"s{number}" for number in range(20_000)],
            "trial_key": [f"{number:05}" for number in range(20_000)],
            "knob.seqs": range(20_000),
            "kernel_attention": ["x"] * 20_000,
        }
    )
    assert Neighbours.of(rows).count() == 0
    # A look at each of its two hundred million pairs would take minutes.
    assert next(Neighbours.of(rows).differences(), None) is None


def test_settings_that_differ_by_a_fraction_differ() -> None:
    rows = pd.DataFrame(
        {
            "setting": ["low", "high", "wide"],
            "trial_key": ["1", "2", "3"],
            "knob.memory": [0.85, 0.9, 0.9],
            "knob.seqs": [64, 64, 128],
            "kernel_graphs": ["FULL", "NONE", "PIECEWISE"],
        }
    )
    found = [(each["knob"], each["settings"]) for each in Neighbours.of(rows).differences()]
    assert found == [("memory", "low and high"), ("seqs", "high and wide")]

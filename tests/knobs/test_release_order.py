"""The order of vLLM's releases, and what counts as which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from sweeper import knobs
from sweeper.errors import ConfigError
from tests.knobs.asking import only_refusal


def test_releases_are_ordered_as_they_appeared() -> None:
    in_order = [
        "pre-0.4.3",
        "0.4.3",
        "0.6.2",
        "0.6.3.dev116+g151ef4ef",
        "0.6.3rc1",
        "0.6.3",
        "0.6.3.post1",
        "0.6.4",
        "0.9.2",
        "0.10.0",
        "0.32.0+cpu",
        "0.33.0",
    ]
    backwards = in_order[::-1]
    assert sorted(backwards, key=knobs.release_key) == in_order


def test_what_follows_plus_sign_and_trailing_zeros_do_not_count() -> None:
    assert knobs.release_key("0.32.0+cpu") == knobs.release_key("0.32.0") == knobs.release_key("v0.32")


VERSIONS = st.builds(
    lambda numbers, suffix: ".".join(map(str, numbers)) + suffix,
    st.lists(st.integers(0, 12), min_size=2, max_size=3),
    st.sampled_from(["", ".post1", ".post2", "rc1", "rc2", ".dev3", ".post1.dev4", "+rocm620"]),
)


@given(VERSIONS, VERSIONS)
def test_releases_are_ordered_as_packaging_library_orders_them(one: str, other: str) -> None:
    def public(text: str) -> Version:
        return Version(Version(text).public)

    assert (knobs.release_key(one) < knobs.release_key(other)) == (public(one) < public(other))


def test_text_that_is_no_release_is_refused_with_example() -> None:
    with pytest.raises(
        ConfigError, match=r"'latest' is no release of vLLM; expected a version such as 0\.6\.2"
    ):
        knobs.release_key("latest")


@pytest.mark.parametrize(
    "version",
    [
        "0.1.dev9453+g1babc91fe.d20251028",
        "dev",
        "0.9.1rc2.dev",
        "0.0.0",
        "",
        pytest.param("9" * 5000, id="9s"),
    ],
)
def test_version_that_tells_no_release_says_so(version: str) -> None:
    assert knobs.why_unplaced(version) is not None


@pytest.mark.parametrize(
    ("version", "clean"),
    [
        *(("0.4.2", True), ("0.6.3.post1", True), ("0.11.0+rocm700", True), ("0.40.0", True)),
        *(("0.11.1rc2.dev141+g38f225c2a.rocm700", False), ("0.6.3.dev116", False), ("0.6.3rc1", False)),
    ],
)
def test_version_that_tells_one_is_placed_and_is_that_of_release_or_not(version: str, clean: bool) -> None:
    assert knobs.why_unplaced(version) is None
    assert knobs.is_clean(version) is clean


def test_covered_releases_are_sorted_and_span_tables() -> None:
    known = knobs.releases()
    assert known[0] == "0.4.2"
    assert known[-1] == "0.33.0"
    assert list(known) == sorted(known, key=Version)


def test_development_build_counts_as_release_before_it() -> None:
    # --scheduling-policy came with 0.6.3; a build 116 commits after 0.6.2 may lack it.
    refusal = only_refusal({"scheduling_policy": "priority"}, "0.6.3.dev116+g151ef4ef")
    assert refusal.kind == "not_yet"
    assert not knobs.check({"scheduling_policy": "priority"}, release="0.6.3")

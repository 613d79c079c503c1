"""What of an address may be shown, and what lies below one."""

from __future__ import annotations

import pytest

from sweeper import urls


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql+psycopg://me:pa/ss@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db?user=me&password=x&a=1", "postgresql://host/db?user=me&password=***&a=1"),
        ("study.storage=postgresql://me:x@host/db", "study.storage=postgresql://me:***@host/db"),
        ("s3://key:hidden@bucket/folder", "s3://key:***@bucket/folder"),
        ("outputs/a:b@c", "outputs/a:b@c"),
    ],
)
def test_passwords_are_masked_and_the_rest_is_kept(given: str, shown: str) -> None:
    assert urls.masked(given) == shown
    assert urls.has_password(given) is (given != shown)


def test_nested_content_is_masked_everywhere() -> None:
    content = {"study": {"storage": "a://u:p@h", "trials": 3}, "list": ["a://u:p@h", None, True]}
    assert urls.masked(content) == {
        "study": {"storage": "a://u:***@h", "trials": 3},
        "list": ["a://u:***@h", None, True],
    }


def test_what_lies_below_a_url_keeps_its_parameters() -> None:
    assert urls.below("s3://bucket/sweeps/?region=eu-1", "study") == "s3://bucket/sweeps/study?region=eu-1"
    assert urls.below("gs://bucket", "study") == "gs://bucket/study"
    assert urls.below("file:///data", "study") == "file:///data/study"


def test_a_url_is_told_from_a_folder() -> None:
    assert urls.is_url("s3://bucket/x")
    assert not urls.is_url("/data/x")
    assert not urls.is_url("relative/x")

"""What of an address may be shown, and what lies below one."""

from __future__ import annotations

from sweeper.text import urls


def test_what_lies_below_url_keeps_its_parameters() -> None:
    assert urls.below("s3://bucket/sweeps/?region=eu-1", "study") == "s3://bucket/sweeps/study?region=eu-1"
    assert urls.below("gs://bucket", "study") == "gs://bucket/study"
    assert urls.below("file:///data", "study") == "file:///data/study"


def test_url_is_told_from_folder() -> None:
    assert urls.is_url("s3://bucket/x")
    assert not urls.is_url("/data/x")
    assert not urls.is_url("relative/x")

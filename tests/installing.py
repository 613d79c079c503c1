"""A stand-in for uv, for what installs into environments of their own."""

from __future__ import annotations

from pathlib import Path


def write_uv(folder: Path, *, exit_code: int) -> Path:
    """A uv that notes how it was called and then succeeds or fails."""
    folder.mkdir(exist_ok=True)
    uv = folder / "uv"
    uv.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/calls\necho "error: no such wheel" >&2\nexit {exit_code}\n'
    )
    uv.chmod(0o755)
    return uv

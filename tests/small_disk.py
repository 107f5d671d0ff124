"""A file system of its own that is soon full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(place: Path, *, mebibytes: int) -> Iterator[Path]:
    """Mount one at `place`, which is made; without the rights to do so the test is skipped, but never in CI."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "tmpfs", place]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"cannot mount a small disk: {done.stderr.decode()}")
        pytest.skip("mounting a small disk wants root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)

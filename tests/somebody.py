"""Being somebody else for a moment, as far as the kernel is concerned: for tests of who owns a connection."""

from __future__ import annotations

import encodings.idna  # noqa: F401  # what a connection imports when it is first made, somebody else may not be able to read
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")

ME = pwd.getpwuid(os.geteuid()).pw_name
UNNAMED = 54321
"""A uid that nobody has a name for."""


@contextmanager
def somebody(uid: int) -> Iterator[None]:
    """Let the sockets that are made or connected meanwhile be those of `uid`. Only root can."""
    before = os.geteuid()
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)

"""A file of the maildrop as it is opened: what is no message goes, what we cannot open now stays."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sesrelay.listener.dropped import Unfit, read

NAME = "1-0123456789abcdef"


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_message_that_cannot_be_opened_for_want_of_descriptors_is_no_misfit(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nA: b\r\n\r\nt\r\n.\r\n")
    with no_descriptor_left(), pytest.raises(OSError, match="Too many open files"):
        read(str(tmp_path), NAME, 1000)
    assert read(str(tmp_path), NAME, 1000).recipients == (b"RCPT TO:<b@y>",)


def test_a_link_is_worthless_whatever_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to("/dev/null")
    with pytest.raises(Unfit) as unfit:
        read(str(tmp_path), NAME, 1000)
    assert unfit.value.worthless

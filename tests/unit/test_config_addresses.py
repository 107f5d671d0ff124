"""Which addresses can be open at once: what `check` says is what the kernel says."""

from __future__ import annotations

from pathlib import Path

import pytest

from sesrelay.config.addresses import meet
from sesrelay.config.loading import load
from sesrelay.listener import AddressTaken, ListenError, bind


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("127.0.0.1:{}", "localhost:{}", False),
        ("127.0.0.1:{}", "0.0.0.0:{}", False),
        ("0.0.0.0:{}", "127.0.0.2:{}", False),
        ("[::1]:{}", "[0:0:0:0:0:0:0:1]:{}", False),
        ("[::1]:{}", "[::]:{}", False),
        ("127.0.0.1:{}", "127.0.0.2:{}", True),
        ("[::]:{}", "0.0.0.0:{}", True),
        ("[::1]:{}", "127.0.0.1:{}", True),
        ("127.0.0.1:0", "127.0.0.1:0", True),
        ("127.0.0.1:{}", "unix:{tmp}/s", True),
        ("unix:{tmp}/s", "unix:{tmp}/./s", False),
        ("unix:{tmp}/s", "unix:{tmp}/link/s", False),
        ("unix:{tmp}/s", "unix:{tmp}/t", True),
    ],
)
def test_what_meets_cannot_be_opened_twice(one: str, other: str, both: bool, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with bind("127.0.0.1:0") as probe:
        port = probe.getsockname()[1]
    one, other = (text.format(port, tmp=tmp_path) for text in (one, other))
    assert (meet(one, other), meet(other, one)) == (not both, not both)
    try:
        first = bind(one)
    except ListenError:
        pytest.skip("no IPv6 here")
    with first:
        if both:
            bind(other).close()
        else:
            with pytest.raises(AddressTaken):
                bind(other)


def test_addresses_beside_each_other(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "access: {networks: [192.0.2.0/24]}\n"
        "listeners: [{listen: '0.0.0.0:25'}, {listen: '[::]:25'}, {listen: '127.0.0.1:0'}, {listen: '127.0.0.1:0'},\n"
        "  {listen: 'unix:a.sock'}, {listen: 'unix:b.sock'}, {listen: '127.0.0.1:9126'}]\n"
        "control: c.sock\nhttp: {listen: '127.0.0.2:9126'}\n"
    )
    assert len(load(tmp_path / "c.yaml", environ={}).config.listeners) == 7

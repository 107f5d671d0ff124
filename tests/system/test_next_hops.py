"""The whole relay before a real Postfix and a real Exim: what programs send arrives as it was sent, by a relay's route and by MX."""

from __future__ import annotations

from pathlib import Path

import pytest

import peers
from next_hops import HOPS, NextHop, journey


@pytest.mark.parametrize("kind", HOPS, ids=[hop.name for hop in HOPS])
def test_mail_arrives_unharmed_and_signed(kind: type[NextHop], tmp_path: Path) -> None:
    reason = kind.unavailable()
    if reason is not None:
        peers.missing(reason)
    with kind() as hop:
        sent, wrong = journey(hop, tmp_path, rounds=1)
    assert wrong == []
    assert sent == 16

"""SIGKILL at random while mail comes in: whatever got its 250 is there afterwards. `make soak` does it ten thousand times."""

from __future__ import annotations

from pathlib import Path

import pytest

from onslaught import SesHop, SmtpHop, kill_at_random

MESSAGES, KILLS = 500, 4


@pytest.mark.parametrize("hop", [SesHop, SmtpHop])
def test_kills_lose_nothing(tmp_path: Path, hop: type[SesHop] | type[SmtpHop]) -> None:
    with hop() as next_hop:
        found = kill_at_random(next_hop, tmp_path, KILLS, MESSAGES)
    assert found.acknowledged == MESSAGES
    assert found.lost == 0
    assert found.twice <= found.bound

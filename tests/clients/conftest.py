"""One relay before the stand-in for SES, for all programs that hand it mail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from relay_process import Relay, StandIn, ses_transport, wait_for


@pytest.fixture(scope="module")
def ses() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture(scope="module")
def relay(ses: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    more = f"transports:\n{ses_transport('ses', ses.url)}\ndefault_route: {{transport: ses}}\n"
    with Relay(tmp_path_factory.mktemp("relay"), more) as running:
        yield running


@pytest.fixture
def taken(ses: StandIn) -> Callable[[str], dict[str, Any]]:
    """Return what waits for the one message to a recipient at SES and returns it."""

    def wait(recipient: str) -> dict[str, Any]:
        found = wait_for(
            f"SES has the message to {recipient}", lambda: [one for one in ses.journal() if recipient in one["destinations"]]
        )
        assert len(found) == 1
        return dict(found[0])

    return wait

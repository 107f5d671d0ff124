"""One relay before the stand-in for SES and before an SMTP host, for all programs that hand it mail.

example.com goes to SES, example.net to the SMTP host, which takes DSN and SMTPUTF8; other senders are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clients.doors import CHEAP, PASSWORD, USER, Doors
from clients.languages import Way
from clients.sink import Sink
from relay_process import Relay, StandIn, ses_transport, wait_for


@pytest.fixture(scope="module")
def ses() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running


@pytest.fixture(scope="module")
def relay(ses: StandIn, sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    more = (
        f"transports:\n{ses_transport('ses', ses.url)}\n"
        f"  sink: {{type: smtp, host: 127.0.0.1, port: {sink.port}, tls: none}}\n"
        "routes: [{sender: example.com, transport: ses}, {sender: example.net, transport: sink}]\n"
        "default_route: {reject: true}\n"
    )
    with Relay(tmp_path_factory.mktemp("relay"), more) as running:
        yield running


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """A relay that thinks its disk full: what it answers now, it would not answer later."""
    more = "limits: {min_free_disk: 1000000GiB}\ntransports: {nowhere: {type: discard}}\ndefault_route: {transport: nowhere}\n"
    with Relay(tmp_path_factory.mktemp("full"), more) as running:
        yield Way(*running.smtp)


@pytest.fixture(scope="module")
def doors(sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    more = (
        f'access: {{users: [{{name: "{USER}", password_hash: "{CHEAP.hash(PASSWORD)}", senders: [example.net]}}]}}\n'
        f"transports:\n  sink: {{type: smtp, host: 127.0.0.1, port: {sink.port}, tls: none}}\n"
        "default_route: {transport: sink}\n"
    )
    with Doors(tmp_path_factory.mktemp("doors"), more) as running:
        yield running


@pytest.fixture
def way(relay: Relay) -> Way:
    return Way(*relay.smtp)


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

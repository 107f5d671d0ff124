"""The whole relay before a real Postfix and a real Exim: what programs send arrives as it was sent, by a relay's route and by MX."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import peers
from next_hops import DOMAIN, HOPS, NextHop, corpus, harmed, numbered
from relay_process import Relay, wait_for
from small_dns import SmallDns


@contextmanager
def name_server(dns: SmallDns) -> Iterator[SmallDns]:
    """Serve in a thread of its own, as the relay is a process of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(dns.__aenter__(), loop).result(30)
    try:
        yield dns
    finally:
        asyncio.run_coroutine_threadsafe(dns.__aexit__(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize("kind", HOPS, ids=[hop.name for hop in HOPS])
def test_mail_arrives_unharmed(kind: type[NextHop], tmp_path: Path) -> None:
    reason = kind.unavailable()
    if reason is not None:
        peers.missing(reason)
    made = corpus()
    records = {(DOMAIN, "MX"): [f"10 mx.{DOMAIN}."], (f"mx.{DOMAIN}", "A"): ["127.0.0.1"]}
    with kind() as hop, name_server(SmallDns(records)) as dns:
        more = (
            f"transports:\n  hop: {{type: smtp, host: 127.0.0.1, port: {hop.port}}}\n"
            f"  direct: {{type: direct, port: {hop.port}, nameservers: ['{dns.nameserver}'], allow_private_addresses: true}}\n"
            "routes: [{sender: example.com, transport: hop}]\n"
        )
        with Relay(tmp_path, more) as relay:
            senders = ("a@example.com", "a@example.net")
            ids = [
                relay.submit(sender, f"b@{DOMAIN}", numbered(name, content, number, sender))
                for number, sender in enumerate(senders)
                for name, content in made.items()
            ]
            for queue_id in ids:
                (delivery,) = relay.ended(queue_id)
                assert delivery["state"] == "delivered", delivery
            wait_for("all are in the mailbox", lambda: hop.count() >= len(ids))
            assert harmed(hop.received(), made, len(senders)) == []

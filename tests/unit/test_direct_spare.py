"""The way out that only bounces may take: as good as the one it stands for, and not there before it is wanted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from batches import Bytes, batch, by_address, eventually
from fakes import FakeClock
from scripted_host import ScriptedHost
from sesrelay.mail.outcome import Deferred, Delivered, Scope
from sesrelay.seams import Transport
from sesrelay.transport.direct.spare import SpareTransport
from sesrelay.transport.direct.transport import DirectOptions, DirectTransport
from small_dns import SmallDns

HOSTS = {("example.org", "MX"): ["10 mx.example.org."], ("mx.example.org", "A"): ["127.0.0.1"]}


async def test_it_is_made_once_and_delivers_like_the_one_it_stands_for() -> None:
    made: list[DirectTransport] = []
    async with SmallDns(dict(HOSTS)) as dns, ScriptedHost() as host:

        def make() -> Transport:
            options = DirectOptions("relay.example.com", host.port, nameservers=[dns.nameserver], allow_private_addresses=True)
            made.append(DirectTransport("direct", options, FakeClock()))
            return made[-1]

        spare = SpareTransport("direct", 600.0, make)
        spare.start()
        await spare.close()
        assert not made
        message = batch("b@example.org")
        first, second = await asyncio.gather(spare.deliver(message, Bytes()), spare.deliver(message, Bytes()))
        for outcomes in (first, second):
            assert isinstance(by_address(message, outcomes)["b@example.org"], Delivered)
        (real,) = made
        for shared in ("name", "batch_limit", "concurrency", "failover_after"):
            assert getattr(spare, shared) == getattr(real, shared)
        assert spare.nexthop("b@Example.org") == real.nexthop("b@Example.org")
        assert spare.pace(7, 0.0) == real.pace(7, 0.0)
        await spare.close()
        await eventually(lambda: all(said[-1] == "QUIT" for said in host.commands))


async def test_mail_waits_where_it_cannot_be_made() -> None:
    async with SmallDns(dict(HOSTS)) as dns, ScriptedHost() as host:
        broken = [OSError("no such file"), ValueError("no such key")]

        def make() -> Transport:
            if broken:
                raise broken.pop()
            options = DirectOptions("relay.example.com", host.port, nameservers=[dns.nameserver], allow_private_addresses=True)
            return DirectTransport("direct", options, FakeClock())

        spare, message = SpareTransport("direct", 600.0, make), batch("b@example.org", "c@example.org")
        for why in ("no such key", "no such file"):
            for outcome in (await spare.deliver(message, Bytes())).values():
                assert isinstance(outcome, Deferred)
                assert (outcome.scope, outcome.ambiguous, outcome.reply.code) == (Scope.MESSAGE, False, 451)
                assert why in outcome.reply.text
        assert [type(each) for each in (await spare.deliver(message, Bytes())).values()] == [Delivered] * 2
        await spare.close()


@pytest.mark.parametrize(
    ("more", "kind", "loaded"),
    [
        ("default_route: {transport: park}", "SpareTransport", False),
        ("default_route: {transport: [park, direct]}", "DirectTransport", True),
        # What is configured is made at once: what is wrong with it is then told at the start, and refused by a reload.
        ("  direct: {type: direct, failover_after: 1m}\ndefault_route: {transport: park}", "DirectTransport", True),
    ],
)
def test_a_relay_that_sends_nothing_directly_does_without_dns(tmp_path: Path, more: str, kind: str, loaded: bool) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"hostname: relay.example.net\nstate_dir: {tmp_path}\ntransports:\n  park: {{type: hold}}\n{more}\n")
    code = (
        "import sys\nfrom pathlib import Path\nfrom sesrelay.app.daemon import Daemon\nfrom sesrelay.app.ways_out import Shared\nfrom sesrelay.app.wiring import snapshot\n"
        "from sesrelay.config.loading import load\n"
        "made = snapshot(load(Path(sys.argv[1])), Shared(None, None))\n"
        "print(type(made.transports['direct']).__name__, 'dns' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(config)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [kind, str(loaded)]

"""The way to SES leads through a proxy: what has not left as a whole is certainly not sent, and all else is in doubt."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from http_hosts import HEAD_END, Handler, closes_under_tls, refuses, reset, served, tunnel_to
from ses_world import PaperSession, message, world
from sesrelay.mail.outcome import Deferred, Delivered, PauseReason, Scope
from sesrelay.testing.ses import SesStandIn


async def closes(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def closes_under_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(HEAD_END)
    writer.close()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(HEAD_END)
    reset(writer)


async def talks_garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(HEAD_END)
    writer.write(b"\0\1garbage" + HEAD_END)
    await writer.drain()
    writer.close()


async def answers_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(HEAD_END)
    writer.write(b"HTTP/1.1 200 Conn")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    "proxy",
    [closes, closes_under_connect, resets, talks_garbage, answers_half, refuses, closes_under_tls],
    ids=lambda one: one.__name__,
)
async def test_a_proxy_that_makes_no_tunnel_has_sent_nothing(proxy: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(proxy) as port, world("https://ses.invalid") as w:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        for _ in range(2):
            (outcome,) = await w.send("b@example.org")
            assert isinstance(outcome, Deferred)
            assert (outcome.scope, outcome.reason, outcome.ambiguous) == (Scope.NEXTHOP, PauseReason.UNAVAILABLE, False)


@pytest.mark.parametrize("proxy", [closes_under_connect, resets, talks_garbage, answers_half], ids=lambda one: one.__name__)
@pytest.mark.parametrize(("octets", "doubt"), [(100, True), (20_000_000, False)])
async def test_what_a_proxy_was_given_without_a_tunnel_is_in_doubt_where_it_had_the_whole(
    proxy: Handler, octets: int, doubt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = message("From: a@example.com", body=b"All work and no play.\r\n" * (octets // 23))
    async with served(proxy) as port, world("http://ses.invalid") as w:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        (outcome,) = await w.send("b@example.org", content=content)
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.ambiguous) == (Scope.MESSAGE, doubt)


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "garbage", "truncated"])
async def test_what_has_left_through_a_tunnel_is_in_doubt(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca, bundle = trustme.CA(), tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(bundle))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("ses.invalid").configure_cert(tls)
    session = PaperSession("https://ses.invalid", ca_bundle=str(bundle))
    connects: list[bytes] = []
    async with SesStandIn(tls=tls) as ses, served(tunnel_to(int(ses.url.rpartition(":")[2]), connects)) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        async with world(session.url, session=session) as w:
            found = []
            for new in (True, False):  # a tunnel made for it, and one that is kept
                if not new:
                    found += await w.send("b@example.org")
                ses.fail(fault)
                (lost,) = await w.send("b@example.org")
                assert isinstance(lost, Deferred)
                assert (lost.scope, lost.ambiguous) == (Scope.MESSAGE, True)
    assert [type(one) for one in found] == [Delivered]
    assert all(head.startswith(b"CONNECT ses.invalid:443 ") for head in connects)


@pytest.mark.parametrize("scheme", ["http://", "", "//"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_proxy_needs_no_scheme(scheme: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SesStandIn() as ses, world("http://ses.invalid") as w:
        monkeypatch.setenv("http_proxy", f"{scheme}{host}:{ses.url.rpartition(':')[2]}")
        (outcome,) = await w.send("b@example.org")
    assert isinstance(outcome, Delivered)

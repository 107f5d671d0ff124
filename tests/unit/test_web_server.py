"""The HTTP server as clients meet it, over real connections on loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from browser.paper_desk import message
from browser.paper_relay import ID, Relay
from sesrelay.app.wiring import web_options
from sesrelay.config.loading import load
from sesrelay.web.guard import HEADERS
from sesrelay.web.options import PageUnreachable, WebOptions, is_loopback
from sesrelay.web.visitors import Visitors
from turns import Turns

PATHS = ["/", f"/messages/{ID}", "/static/style.css", "/static/live.js", "/static/icon.svg", "/healthz", "/readyz", "/metrics"]
PATHS += ["/api/v1/summary", "/api/v1/recent", f"/api/v1/messages/{ID}", f"/api/v1/trace/{ID}"]


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with Relay(WebOptions(port=0, hostname="mail.example.com", smtp="127.0.0.1:2525")) as made:
        yield made


@pytest.fixture
async def exposed() -> AsyncIterator[Relay]:
    async with Relay(WebOptions(host="0.0.0.0", port=0, token="pa:ss wörd", hostname="mail.example.com")) as made:
        yield made


# --- machines ---


async def test_health_and_readiness(relay: Relay) -> None:
    assert (await relay.get("/healthz"))[:2] == (200, '{"ok": true}')
    assert (await relay.get("/readyz"))[:2] == (200, '{"ready": true, "missing": []}')
    relay.missing = ["the queue cannot be written"]
    status, text, _ = await relay.get("/readyz")
    assert (status, json.loads(text)) == (503, {"ready": False, "missing": ["the queue cannot be written"]})
    assert (await relay.get("/healthz"))[0] == 200


async def test_a_readiness_check_that_fails_is_not_passed(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> list[str]:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(relay.server, "_ready", fail)
    status, text, _ = await relay.get("/readyz")
    assert status == 503
    assert "secret" not in text


async def test_metrics_have_prometheus_type(relay: Relay) -> None:
    status, text, headers = await relay.get("/metrics")
    assert (status, text) == (200, "sesrelay_config_reload_success 1.0\n")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("path", ["/", "/api/v1/recent"])
async def test_mail_goes_on_while_much_is_shown(relay: Relay, path: str) -> None:
    """A message may have a thousand recipients: what is made of fifty such takes seconds, and no client was answered meanwhile."""
    touched: dict[str, int] = {}

    class Paper(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            touched.setdefault(self["id"], turns.now)
            return super().get(key, default)

        def items(self) -> Any:
            touched.setdefault(self["id"], turns.now)
            return super().items()

    relay.desk.messages = [Paper(message(f"{n:013d}", "hello")) for n in range(20)]
    with Turns() as turns:
        assert (await relay.get(path))[0] == 200
    assert len(set(touched.values())) == 20


async def test_json_is_the_desks(relay: Relay) -> None:
    paper = relay.desk.messages[0]
    asked: dict[str, Any] = {path: json.loads((await relay.get(f"/api/v1/{path}"))[1]) for path in ("summary", "recent")}
    assert asked == {"summary": relay.desk.figures, "recent": [paper]}
    assert json.loads((await relay.get(f"/api/v1/messages/{ID}"))[1]) == paper
    for any_id in (ID, f"{ID}@example.com", f"%3C{ID}@example.com%3E"):
        assert [found["id"] for found in json.loads((await relay.get(f"/api/v1/trace/{any_id}"))[1])] == [ID]
    assert (await relay.get("/api/v1/trace/nothing/with/slashes"))[:2] == (200, "[]")
    assert (await relay.get("/api/v1/messages/nothing"))[0] == 404


@pytest.mark.parametrize("limit", ["0", "201", "-1", "ten", "", "٣", "9" * 5000, "000000001" + "0" * 9])
async def test_limits_are_checked(relay: Relay, limit: str) -> None:
    assert (await relay.get(f"/api/v1/recent?limit={limit}"))[0] == 400


async def test_limit_is_kept(relay: Relay) -> None:
    relay.desk.messages = [message(f"{n:013d}", "x") for n in range(5)]
    assert len(json.loads((await relay.get("/api/v1/recent?limit=2"))[1])) == 2


# --- defences ---


@pytest.mark.parametrize("path", [*PATHS, "/nothing", "/messages/nothing", "/api/v1/messages/nothing"])
async def test_every_answer_has_the_headers(relay: Relay, path: str) -> None:
    status, _, headers = await relay.get(path, Origin="https://evil.example")
    assert status == (404 if "nothing" in path else 200)
    assert {name: headers.get(name) for name in HEADERS} == HEADERS
    assert not any(name.lower().startswith("access-control") for name in headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_nothing_takes_a_changing_method(relay: Relay, method: str) -> None:
    for path in PATHS:
        assert (await relay.get(path, method))[0] == 405


async def test_head_has_no_body(relay: Relay) -> None:
    assert (await relay.get("/", "HEAD"))[:2] == (200, "")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:9125",
        "localhost.",
        "127.0.0.1:1",
        "127.3.2.1",
        "[::1]:9125",
        "mail.example.com",
        "Mail.Example.com:80",
    ],
)
async def test_names_of_ours_are_answered(relay: Relay, host: str) -> None:
    assert (await relay.get("/", Host=host))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9125",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "mail.example.com.evil.example",
        "10.0.0.1",
        "[fe80::1]",
    ],
)
async def test_other_names_are_not(relay: Relay, host: str) -> None:
    for path in PATHS:
        assert (await relay.get(path, Host=host))[0] == 421


@pytest.mark.parametrize("host", ["", "a b", "user@localhost", "localhost/x", "localhost:port"])
async def test_odd_hosts_are_refused(relay: Relay, host: str) -> None:
    answer = await relay.raw(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_two_hosts_are_refused(relay: Relay) -> None:
    answer = await relay.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))


async def test_an_old_probe_without_host_is_answered(relay: Relay) -> None:
    assert (await relay.raw(b"GET /healthz HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.0 200 ")
    answer = await relay.raw(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))


async def test_configured_names_are_answered(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text('http: {listen: "127.0.0.1:0", allowed_hosts: [Relay.Intranet]}\n')
    async with Relay(web_options(load(config), None)) as relay:
        assert (await relay.get("/", Host="relay.intranet"))[0] == 200


@pytest.mark.parametrize("path", ["/static/../server.py", "/static/%2e%2e/server.py", "/static/", "/static/status.html"])
async def test_static_has_its_three_files_and_no_other(relay: Relay, path: str) -> None:
    answer = await relay.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")


async def test_garbage_learns_no_version_and_fills_no_log(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    for request in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"EHLO mail.example.com\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        answer = await relay.raw(request)
        assert b"aiohttp" not in answer
        assert b"Python" not in answer
        assert b"400" in answer
    assert not caplog.records


# --- the token ---


async def test_off_loopback_the_token_is_wanted(exposed: Relay) -> None:
    basic = base64.b64encode("anyone:pa:ss wörd".encode()).decode()
    for path in PATHS:
        expected = 200 if path in ("/healthz", "/readyz") else 401
        status, _, headers = await exposed.get(path)
        assert (path, status) == (path, expected)
        assert ("WWW-Authenticate" in headers) is (expected == 401)
        assert (await exposed.get(path, Authorization=f"Basic {basic}"))[0] == 200


async def test_bearer_holds_the_token() -> None:
    async with Relay(WebOptions(host="0.0.0.0", port=0, token="abc123")) as relay:
        assert (await relay.get("/", Authorization="Bearer abc123"))[0] == 200
        assert (await relay.get("/", Authorization="bearer  abc123 "))[0] == 200
        for wrong in (
            "Bearer abc12",
            "Bearer",
            "Bearer abc1234",
            "abc123",
            "Basic abc123",
            "Basic !!",
            "Digest abc123",
            "Basic Og==",
        ):
            assert (await relay.get("/", Authorization=wrong))[0] == 401


def test_off_loopback_without_a_token_it_does_not_start() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "relay.example.com"):
        with pytest.raises(ValueError, match="requires a token"):
            Relay(WebOptions(host=host, port=0))


def test_the_token_is_no_part_of_repr() -> None:
    assert "canary" not in repr(WebOptions(token="canary"))


@pytest.mark.parametrize(("host", "inside"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.example.com", False)])  # fmt: skip
def test_loopback(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside


# --- visitors ---


def visitors(monkeypatch: pytest.MonkeyPatch, **few: Any) -> None:
    monkeypatch.setattr("sesrelay.web.server.Visitors", functools.partial(Visitors, **few))


async def connect(relay: Relay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", relay.server.address[1])


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost:", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"])
async def test_who_says_nothing_for_long_is_not_kept(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    visitors(monkeypatch, patience=0.05, sweep=0.01)
    async with Relay(WebOptions(port=0)) as relay, asyncio.timeout(10):
        reader, writer = await connect(relay)
        writer.write(said)
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_many_who_are_silent_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    visitors(monkeypatch, most=3)
    async with Relay(WebOptions(port=0)) as relay, asyncio.timeout(10):
        asks = await connect(relay)
        silent = []
        for _ in range(9):
            silent.append(await connect(relay))
            asks[1].write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await asks[0].readuntil(b'{"ok": true}')).startswith(b"HTTP/1.1 200 ")
        gone = await asyncio.gather(*(reader.read() for reader, _ in silent[:7]), return_exceptions=True)
        assert all(end == b"" or isinstance(end, ConnectionResetError) for end in gone)
        assert not silent[-1][0].at_eof()
        for _, writer in (asks, *silent):
            writer.close()


# --- listening ---


async def test_a_taken_address_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        relay = Relay(WebOptions(port=port))
        with pytest.raises(
            PageUnreachable, match=f"cannot listen on 127.0.0.1:{port} for HTTP.*; stop the program that listens there, or"
        ):
            await relay.server.start()
        await relay.server.stop()


async def test_where_nothing_listens_nothing_is_to_be_stopped() -> None:
    relay = Relay(WebOptions(host="192.0.2.7", token="t"))
    with pytest.raises(PageUnreachable, match=r"cannot listen on 192.0.2.7:9125 for HTTP: [^;]*; change http.listen$"):
        await relay.server.start()


async def test_the_address_is_the_actual_one(relay: Relay) -> None:
    host, port = relay.server.address
    assert host == "127.0.0.1"
    assert port != 0
    assert relay.server.url == f"http://127.0.0.1:{port}/"


async def test_stopping_twice_is_harmless_and_frees_the_address(relay: Relay) -> None:
    port = relay.server.address[1]
    await relay.server.stop()
    await relay.server.stop()
    async with Relay(WebOptions(port=port)) as again:
        assert (await again.get("/healthz"))[0] == 200


async def test_one_that_cannot_take_over_leaves_the_old_one_serving(relay: Relay) -> None:
    port = relay.server.address[1]
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PageUnreachable, match=r"^cannot listen on "):
        await Relay(WebOptions(port=taken.getsockname()[1])).server.take_over(relay.server)
    assert (relay.server.address[1], (await relay.get("/healthz"))[0]) == (port, 200)


async def test_where_the_address_stays_the_old_one_comes_back(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    new = Relay(WebOptions(port=0, hostname="new.example.com"))  # the same wish as the old one's, so that it is stopped first

    async def fail() -> None:
        raise PageUnreachable("no descriptor is left")

    with monkeypatch.context() as patched, pytest.raises(PageUnreachable):
        patched.setattr(new.server, "start", fail)
        await new.server.take_over(relay.server)
    assert (await relay.get("/", Host="mail.example.com"))[0] == 200
    await new.server.take_over(relay.server)
    assert (await new.get("/", Host="new.example.com"))[0] == 200
    await new.server.stop()

"""HTTP to SES over a connection of our own: answers however they come and are framed, and what may follow on the same connection."""

from __future__ import annotations

import asyncio
import gc
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from http_hosts import HEAD_END, Handler, closes_under_tls, length, narrow, narrow_host, refuses, reset, served, tunnel_to
from loops import Run
from sesrelay.mail.filed import Filed
from sesrelay.seams import SpoolError
from sesrelay.transport.ses import opening, pool
from sesrelay.transport.ses.body import Body, measured
from sesrelay.transport.ses.connection import ANSWER_MAX, Answered, Lost, NotSent
from sesrelay.transport.ses.pool import Pool

Pieces = Sequence[bytes]
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nX-Amzn-ErrorType: Odd\r\nContent-Length: 6\r\n\r\nanswer"
CHUNKED = b"HTTP/1.1 400 Bad Request\r\nX-A: first\r\nX-A: second\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nans\r\n3;ext=1\r\nwer\r\n0\r\nTrailer: x\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" + PLAIN
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\n\r\nanswer"


class Server:
    """Answers each request of a connection with the next of `answers`, piece by piece, and closes behind the last one.

    `heads`: of the requests; `peers`: whose they were.
    """

    def __init__(self, *answers: Pieces, unasked: bytes = b"", stays: bool = False) -> None:
        self.answers = list(answers)
        self.unasked = unasked
        self.stays = stays
        self.heads: list[bytes] = []
        self.peers: list[object] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while self.answers:
                head = await reader.readuntil(HEAD_END)
                await reader.readexactly(length(head))
                self.heads.append(head)
                self.peers.append(writer.get_extra_info("peername"))
                for piece in self.answers.pop(0):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if self.unasked:
                    await asyncio.sleep(0.05)
                    writer.write(self.unasked)
                    await writer.drain()
            if self.stays:
                await reader.read()
        writer.close()


async def asked(server: Server, times: int = 1, pause: float = 0.0, headers: dict[str, str] | None = None) -> list[Any]:
    """Post so often over one pool, and return what came of it."""
    way_out, found = Pool(read_timeout=5.0), []
    try:
        async with served(server) as port:
            for _ in range(times):
                body = await measured(Body(b"a=", b"b"))
                found.append(await way_out.post(f"http://127.0.0.1:{port}/p", headers or {"Host": "h"}, body, None))
                await asyncio.sleep(pause)
    finally:
        await way_out.close()
    return found


@pytest.mark.parametrize(
    ("answer", "status", "headers"),
    [
        (PLAIN, 200, {"content-type": "text/xml", "x-amzn-errortype": "Odd", "content-length": "6"}),
        (CHUNKED, 400, {"x-a": "first", "transfer-encoding": "chunked", "trailer": "x"}),
        (INTERIM, 200, {"content-type": "text/xml", "x-amzn-errortype": "Odd", "content-length": "6"}),
        (UNTIL_CLOSED, 200, {}),
    ],
)
def test_an_answer_is_the_same_wherever_it_is_cut(run: Run, answer: bytes, status: int, headers: dict[str, str]) -> None:
    cuts = [(answer,), tuple(bytes([octet]) for octet in answer), *((answer[:at], answer[at:]) for at in range(1, len(answer), 7))]
    for pieces in cuts:
        assert run(asked(Server(pieces))) == [Answered(status, headers, b"answer")]


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED, INTERIM])
def test_the_next_request_goes_the_same_way(run: Run, answer: bytes) -> None:
    server = Server(*[(answer,)] * 3)
    assert [found.body for found in run(asked(server, 3))] == [b"answer"] * 3
    assert server.peers == [server.peers[0]] * 3
    assert (
        server.heads[0]
        == b"POST /p HTTP/1.1\r\nHost: h\r\nUser-Agent: sesrelay\r\nAccept-Encoding: identity\r\nContent-Length: 6\r\n\r\n"
    )


@pytest.mark.parametrize(
    "answer",
    [
        PLAIN,
        PLAIN.replace(b"Content-Type", b"Connection: close\r\nContent-Type"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        UNTIL_CLOSED,
        PLAIN + PLAIN,
        PLAIN + PLAIN[:1],
        PLAIN + PLAIN[:17],
        PLAIN + PLAIN[:-1],
        PLAIN + b"more",
        PLAIN.replace(b"Content-Length: 6", b"Content-Length: 0").removesuffix(b"answer") + b"\0",
    ],
)
def test_nothing_follows_where_the_connection_was_closed_or_there_was_more_behind_the_answer(run: Run, answer: bytes) -> None:
    first, second = Server((answer,)), Server((PLAIN,))
    both = [first, second]

    async def takes_turns(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await both.pop(0)(reader, writer)

    server: Any = takes_turns
    found = run(asked(server, 2, pause=0.1))
    assert [one.status for one in found] == [200, 200]
    assert "x-amzn-errortype" not in found[0].headers or found[0].headers["x-amzn-errortype"] == "Odd"
    assert first.peers != second.peers


def test_both_apis_of_a_host_share_its_connections(run: Run) -> None:
    server = Server((PLAIN,), (PLAIN,))

    async def by_both() -> None:
        way_out = Pool()
        async with served(server) as port:
            for path in ("", "/v2/email/outbound-emails"):
                await way_out.post(f"http://127.0.0.1:{port}{path}", {}, await measured(Body(b"", b"b")), None)
            await way_out.close()

    run(by_both())
    assert [head.split()[1] for head in server.heads] == [b"/", b"/v2/email/outbound-emails"]
    assert server.peers[0] == server.peers[1]


def test_what_was_not_asked_for_ends_a_connection(run: Run) -> None:
    server = Server((PLAIN,), (PLAIN,), unasked=PLAIN.replace(b"answer", b"wrong!"))
    found = run(asked(server, 2, pause=0.2))
    assert [one.body for one in found] == [b"answer"] * 2
    assert server.peers[0] != server.peers[1]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        PLAIN[:-1],
        CHUNKED[:-2],
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200",
        b"220 mail.example.com ESMTP\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        PLAIN.replace(b"Content-Length: 6", b"Content-Length: 6\r\nTransfer-Encoding: chunked"),
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 2 * ANSWER_MAX,
    ],
)
def test_what_is_no_whole_answer_is_a_doubt(run: Run, answer: bytes) -> None:
    (found,) = run(asked(Server((answer,))))
    assert isinstance(found, Lost), found
    assert found.why


def test_a_reset_in_an_answer_without_a_length_is_a_doubt(run: Run) -> None:
    class Resets(Server):
        async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(HEAD_END)
            writer.write(UNTIL_CLOSED)
            await writer.drain()
            await asyncio.sleep(0.1)
            reset(writer)

    assert isinstance(run(asked(Resets()))[0], Lost)


def test_an_answer_that_comes_slowly_is_read(run: Run) -> None:
    async def slowly() -> Any:
        async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(HEAD_END)
            for at in range(0, len(PLAIN), 15):
                writer.write(PLAIN[at : at + 15])
                await asyncio.sleep(0.2)
            writer.close()

        way_out = Pool(read_timeout=0.8)
        async with served(drips) as port:
            found = await way_out.post(f"http://127.0.0.1:{port}", {}, await measured(Body(b"", b"b")), None)
            await way_out.close()
        return found

    assert run(slowly()).body == b"answer"


def test_an_answer_that_comes_early_is_the_last(run: Run) -> None:
    peers: list[object] = []

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await reader.readuntil(HEAD_END):
                peers.append(writer.get_extra_info("peername"))
                writer.write(PLAIN)
                await writer.drain()
        writer.close()

    async def twice() -> list[Any]:
        way_out = Pool()
        async with served(early) as port:
            large, small = await measured(Body(b"", b"b" * 30_000_000)), await measured(Body(b"", b"b"))
            found = [await way_out.post(f"http://127.0.0.1:{port}", {}, body, None) for body in (large, small)]
            await way_out.close()
        return found

    assert [(one.body, one.whole) for one in run(twice())] == [(b"answer", False), (b"answer", True)]
    assert peers[0] != peers[1]


def test_a_host_that_stops_reading_has_not_got_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(HEAD_END)
        await reader.readexactly(350_000)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        writer.transport.abort()

    async def post() -> Any:
        way_out = Pool(read_timeout=0.3)
        listening = narrow_host()
        server = await asyncio.start_server(stops, sock=listening, limit=1_024)
        body = await measured(Body(b"", b"b" * 300_000))
        assert body.size == 400_000
        found = await way_out.post(f"http://127.0.0.1:{listening.getsockname()[1]}", {}, body, None)
        await way_out.close()
        server.close()
        return found

    monkeypatch.setattr(opening, "reach", narrow)
    monkeypatch.setattr(pool, "TOTAL", 1.5)
    assert run(post()) == NotSent("it stopped reading the request", cut=True)


def test_a_proxy_that_refuses_is_quoted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def post(proxy: Handler) -> Any:
        way_out = Pool()
        async with served(proxy) as port:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
            return await way_out.post("https://ses.test", {}, await measured(Body(b"", b"b")), None)

    found = run(post(refuses))
    assert isinstance(found, NotSent)
    assert "refused the tunnel: HTTP/1.1 407 Proxy Authentication Required" in found.why
    assert isinstance(run(post(closes_under_tls)), NotSent)


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://user:secret@127.0.0.1:1",
        "http://user:secret@",
        "http://user:secret",
        "http://user:se#cret@h",
        "http://user:secret\u2100@h",
    ],
)
def test_a_proxy_that_is_none_is_told_without_its_password(run: Run, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def post() -> Any:
        monkeypatch.setenv("http_proxy", proxy)
        return await Pool().post("http://ses.test", {}, await measured(Body(b"", b"b")), None)

    found = run(post())
    assert isinstance(found, NotSent)
    assert "proxy" in found.why
    assert "secret" not in found.why
    assert "se'" not in found.why


def test_of_an_endless_answer_the_beginning_is_read(run: Run) -> None:
    (found,) = run(asked(Server((b"HTTP/1.1 502 Bad\r\n\r\n", *[b"x" * 10_000] * 30), stays=True)))
    assert found.status == 502
    assert ANSWER_MAX <= len(found.body) < 5 * ANSWER_MAX


def test_an_answer_that_stops_is_a_doubt(run: Run) -> None:
    async def stops() -> Any:
        way_out = Pool(read_timeout=0.3)
        async with served(Server((PLAIN[:40],), stays=True)) as port:
            found = await way_out.post(f"http://127.0.0.1:{port}", {}, await measured(Body(b"", b"b")), None)
            await way_out.close()
        return found

    assert run(stops()) == Lost("no answer in time")


@pytest.mark.parametrize(
    "answer",
    [
        PLAIN.replace(b"\r\n", b"\n"),
        PLAIN.replace(b"Odd", b"O\x01d"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6 \r\nanswer\r\n0\r\n\r\n",
    ],
)
def test_an_answer_that_is_a_little_odd_is_read(run: Run, answer: bytes) -> None:
    assert run(asked(Server((answer,))))[0].body == b"answer"


def test_a_look_up_that_ends_when_nobody_waits_is_quiet_and_was_one_for_all(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked_up: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        looked_up.append(host)
        await asyncio.sleep(0.5)
        raise OSError("no name server answers")

    async def posts() -> list[Any]:
        way_out, body = Pool(), await measured(Body(b"", b"b"))
        found = [await way_out.post("http://ses.test", {}, body, None) for _ in range(3)]
        await asyncio.sleep(0.5)
        gc.collect()
        return found

    monkeypatch.setattr(opening, "resolve", resolve)
    monkeypatch.setattr(pool, "CONNECT_ALL", 0.1)
    assert run(posts()) == [NotSent("cannot connect to ses.test:80: no answer in time")] * 3
    assert looked_up == ["ses.test"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("path", "form"),
    [("", b"/"), ("/x?a=b", b"/x?a=b"), ("/a b", b"/a%20b"), ("/a%20b", b"/a%20b"), ("/\u20ac", b"/%E2%82%AC")],
)
def test_a_path_is_asked_for_as_urls_have_it(run: Run, path: str, form: bytes) -> None:
    server = Server((PLAIN,))

    async def post() -> None:
        way_out = Pool()
        async with served(server) as port:
            await way_out.post(f"http://127.0.0.1:{port}{path}", {}, await measured(Body(b"", b"b")), None)
            await way_out.close()

    run(post())
    assert server.heads[0].split(b" ")[1] == form


def test_a_call_that_ends_after_the_close_leaves_nothing_open(run: Run) -> None:
    async def late() -> int:
        way_out = Pool()
        async with served(Server((PLAIN[:-1], b"", PLAIN[-1:]), (PLAIN,), stays=True)) as port:
            task = asyncio.ensure_future(way_out.post(f"http://127.0.0.1:{port}", {}, await measured(Body(b"", b"b")), None))
            await asyncio.sleep(0)
            await way_out.close()
            assert (await task).body == b"answer"
            return len(way_out._idle)

    assert run(late()) == 0


@pytest.mark.parametrize("tunnel", [False, True], ids=["host", "proxy"])
def test_tls_that_does_not_come_about_is_given_up_in_time(
    run: Run, tunnel: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if tunnel:
            await reader.readuntil(HEAD_END)
            writer.write(b"HTTP/1.1 200 Connected" + HEAD_END)
        with suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        writer.close()

    async def post() -> tuple[Any, str]:
        async with served(silent) as port:
            url = f"https://127.0.0.1:{port}"
            if tunnel:
                monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
                url = "https://ses.test"
            found = await Pool().post(url, {}, await measured(Body(b"", b"b")), None)
            await asyncio.sleep(0.1)
        where = f"ses.test:443 through the proxy 127.0.0.1:{port}" if tunnel else f"127.0.0.1:{port}"
        return found, f"cannot connect to {where}: no answer in time"

    monkeypatch.setattr(pool, "CONNECT_ALL", 0.3)
    found, why = run(post())
    assert found == NotSent(why)
    assert not caplog.records


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_host_that_hangs_up_at_once_has_got_nothing(run: Run, scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    async def hangs_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def post() -> Any:
        async with served(hangs_up) as port:
            return [await Pool().post(f"{scheme}://127.0.0.1:{port}", {}, await measured(Body(b"", b"b")), None) for _ in range(20)]

    for found in run(post()):
        assert isinstance(found, NotSent) or scheme == "http"
    assert not caplog.records


def raises(error: Exception) -> Callable[[], None]:
    def end() -> None:
        raise error

    return end


@pytest.mark.parametrize(
    ("happens", "why"),
    [
        (raises(SpoolError("the file cannot be read: I/O error")), "the file cannot be read: I/O error"),
        (raises(MemoryError()), "MemoryError"),
        (raises(RuntimeError("can't start new thread")), "can't start new thread"),
        (lambda: time.sleep(1.5), "it stopped reading the request"),
    ],
    ids=["spool", "memory", "thread", "hangs"],
)
def test_a_body_that_cannot_be_read_to_its_end_is_not_sent(
    run: Run, happens: Callable[[], None], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def read_at(self, at: int, octets: int) -> bytes:
            if broken and at > 1_000_000:
                happens()
            return b"x" * octets

    async def post() -> Any:
        nonlocal broken
        body = await measured(Body(b"a=", Filed(b"head", Broken(), 0, 3_000_000)))
        broken = True
        async with served(Server((PLAIN,))) as port:
            return await Pool().post(f"http://127.0.0.1:{port}", {}, body, None)

    broken = False
    monkeypatch.setattr(pool, "TOTAL", 1.0)
    assert run(post()) == NotSent(why, cut=True)


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\rb", "a\u2028b"])
def test_a_header_that_cannot_be_sent_as_one_is_not(run: Run, value: str) -> None:
    server = Server((PLAIN,))
    (found,) = run(asked(server, headers={"Authorization": value}))
    assert isinstance(found, NotSent)
    assert not server.heads


@pytest.mark.parametrize(
    "url", ["http://", "ftp://127.0.0.1/", "//127.0.0.1/", "http://127.0.0.1:port/", "http://127.0.0.1:99999/"]
)
def test_what_is_no_url_is_not_asked(run: Run, url: str) -> None:
    async def post() -> Any:
        return await Pool().post(url, {}, await measured(Body(b"", b"b")), None)

    assert isinstance(run(post()), NotSent)


def test_a_connection_that_waits_is_closed_in_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "KEPT", 0.1)
    server = Server((PLAIN,), (PLAIN,), (PLAIN,), stays=True)

    async def thrice() -> None:
        way_out = Pool()
        async with served(server) as port:
            for pause in (0.0, 0.5, 0.0):
                await way_out.post(f"http://127.0.0.1:{port}", {}, await measured(Body(b"", b"b")), None)
                await asyncio.sleep(pause)
            await way_out.close()

    run(thrice())
    assert server.peers[0] == server.peers[1] != server.peers[2]


def test_a_name_is_looked_up_once_for_all_who_connect_at_one_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        looked_up.append(host)
        await asyncio.sleep(0.05)
        if len(looked_up) == 1:
            raise OSError("no name server answers")
        return ["127.0.0.1"]

    async def posts() -> list[Any]:
        way_out = Pool()
        async with served(Server(*[(PLAIN,)] * 5)) as port:
            body = await measured(Body(b"", b"b"))
            found: list[Any] = []
            for together in (2, 5):
                tasks = [asyncio.ensure_future(way_out.post(f"http://ses.test:{port}", {}, body, None)) for _ in range(together)]
                await asyncio.sleep(0.01)
                if together == 5:
                    tasks.pop(0).cancel()  # who asked first gives up
                found += await asyncio.gather(*tasks)
            await way_out.close()
        return found

    monkeypatch.setattr(opening, "resolve", resolve)
    found = run(posts())
    assert [type(one) for one in found] == [NotSent] * 2 + [Answered] * 4
    assert looked_up == ["ses.test"] * 2


@pytest.mark.parametrize("in_place", [False, True])
def test_a_ca_bundle_that_is_replaced_counts_from_the_next_connection_on(run: Run, in_place: bool, tmp_path: Path) -> None:
    first, second, bundle = trustme.CA(), trustme.CA(), tmp_path / "ca.pem"

    async def posts() -> list[Any]:
        way_out = Pool()

        async def post(ca: trustme.CA) -> Any:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            ca.issue_cert("127.0.0.1").configure_cert(context)
            async with served(Server((PLAIN,)), context) as port:
                return await way_out.post(f"https://127.0.0.1:{port}", {}, await measured(Body(b"", b"b")), str(bundle))

        bundle.write_bytes(first.cert_pem.bytes())
        found = [await post(first), await post(second)]
        if not in_place:
            bundle.rename(tmp_path / "before")
            found.append(await post(first))  # it is not there for a moment
        bundle.write_bytes(second.cert_pem.bytes())
        return [*found, await post(first), await post(second)]

    away = [] if in_place else [Answered]
    assert [type(one) for one in run(posts())] == [Answered, NotSent, *away, NotSent, Answered]


def test_connections_are_spread_over_the_addresses_of_a_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def posts() -> tuple[list[int], list[int]]:
        body = await measured(Body(b"", b"b"))
        servers = [Server(*[(PLAIN,)] * 9, stays=True) for _ in range(2)]

        async def at_once() -> list[int]:
            """Post over six new connections, by two names in turn; return how many requests each server has had by then."""
            way_out = Pool()
            found = await asyncio.gather(*(way_out.post(f"http://ses{at % 2}.test:{port}", {}, body, None) for at in range(6)))
            await way_out.close()
            assert [type(one) for one in found] == [Answered] * 6
            return [len(server.heads) for server in servers]

        async with served(servers[0], host="127.0.0.1") as port:
            async with served(servers[1], host="127.0.0.2", port=port):
                both = await at_once()
            return both, await at_once()

    monkeypatch.setattr(opening, "resolve", lambda *_: asyncio.sleep(0, ["127.0.0.2", "127.0.0.1"]))
    both, one_is_gone = run(posts())
    assert both == [2, 4]  # of the three of each name two begin with the first address
    assert one_is_gone == [8, 4]


@pytest.mark.parametrize("target_tls", [False, True], ids=["plain", "tunnel"])
@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http-proxy", "https-proxy"])
def test_a_proxy_is_logged_in_to_and_may_itself_want_tls(
    run: Run, target_tls: bool, proxy_tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, bundle = trustme.CA(), tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(bundle))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1", "ses.test").configure_cert(context)
    login = b"Proxy-Authorization: Basic " + b64encode(b"user:p@ss") + b"\r\n"
    server = Server((PLAIN,), (PLAIN,))
    connects: list[bytes] = []

    async def posts() -> list[Any]:
        way_out = Pool()
        async with (
            served(server, context) as inner,
            served(tunnel_to(inner, connects) if target_tls else server, context if proxy_tls else None) as port,
        ):
            for name in ("http_proxy", "https_proxy"):
                monkeypatch.setenv(name, f"{'https' if proxy_tls else 'http'}://user:p%40ss@127.0.0.1:{port}")
            url = f"{'https' if target_tls else 'http'}://ses.test/p"
            body = await measured(Body(b"a=", b"b" * 300_000))
            found = [await way_out.post(url, {"Host": "ses.test"}, body, str(bundle)) for _ in range(2)]
            await way_out.close()
            return found

    found = run(posts())
    assert [getattr(one, "body", one) for one in found] == [b"answer"] * 2
    assert server.peers[0] == server.peers[1]
    if target_tls:
        assert connects == [b"CONNECT ses.test:443 HTTP/1.1\r\nHost: ses.test:443\r\n" + login + b"\r\n"]
        assert all(head.startswith(b"POST /p HTTP/1.1\r\n") and b"Proxy-" not in head for head in server.heads)
        assert found[0].tls == "TLSv1.3"
    else:
        assert not connects
        assert all(head.startswith(b"POST http://ses.test/p HTTP/1.1\r\n") and login in head for head in server.heads)

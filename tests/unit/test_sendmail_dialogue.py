"""What sendmail says to a host and makes of its answers: each refusal, each lost connection, each extension missing."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from scripted_host import DROP, RESET, ScriptedHost
from sesrelay.listener.dropped import read as read_dropped
from sesrelay.sendmail import client

SOURCES = (
    Path(sys.modules["sesrelay"].__file__ or "").parents[1] if "sesrelay" in sys.modules else Path(__file__).parents[2] / "src"
)
PROGRAM = f"import sys; sys.path.insert(0, {str(SOURCES)!r}); sys.argv[0] = 'sendmail'; from sesrelay.sendmail import main; sys.exit(main())"
ALL = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE 1000000", "ENHANCEDSTATUSCODES")
TEXT = b"Date: d\nMessage-ID: <m@example.com>\nFrom: a@example.com\n\nx\n"


async def send(host: ScriptedHost, *to: str, text: bytes = TEXT, drop: Path | None = None) -> tuple[int, str]:
    """Run the program against `host`; return its exit code and what it said."""
    env = {
        "SESRELAY_SUBMIT": f"127.0.0.1:{host.port}",
        "SESRELAY_MAILDROP": str(drop or "/nonexistent"),
        "PATH": os.environ["PATH"],
    }
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-ISc", PROGRAM, "-i", "-f", "a@example.com", *to, env=env,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(program.communicate(text), 30)
    assert program.returncode is not None
    assert b"Traceback" not in said
    return program.returncode, said.decode()


async def test_with_every_extension_all_is_said_in_one_go() -> None:
    async with ScriptedHost(offers=ALL) as host:
        args = ("-N", "failure,delay", "-R", "hdrs", "-V", "o 42+", "x@example.org", "björn@example.org")
        assert await send(host, *args, text=TEXT + "ü\n".encode()) == (0, "")
        (said,) = host.commands
        size = len((TEXT + "ü\n".encode()).replace(b"\n", b"\r\n"))
        assert said == [
            "EHLO localhost",
            f"MAIL FROM:<a@example.com> SIZE={size} BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=o+2042+2B",
            "RCPT TO:<x@example.org> NOTIFY=FAILURE,DELAY",
            "RCPT TO:<björn@example.org> NOTIFY=FAILURE,DELAY",
            "DATA",
            "QUIT",
        ]


async def test_without_any_nothing_is_said_that_is_not_offered() -> None:
    async with ScriptedHost({"EHLO": "502 5.5.1 What?"}, offers=()) as host:
        assert await send(host, "-N", "never", "-R", "full", "-V", "e", "x@example.org", text=TEXT + b"\xfc\n") == (0, "")
        assert host.commands == [
            ["EHLO localhost", "HELO localhost", "MAIL FROM:<a@example.com>", "RCPT TO:<x@example.org>", "DATA", "QUIT"]
        ]


REFUSALS = [
    ({"CONNECT": "554 5.7.1 Not you"}, 77, "554 5.7.1 Not you"),
    ({"CONNECT": "421 4.3.2 Later"}, 75, "421 4.3.2 Later"),
    ({"CONNECT": DROP}, 75, "closed the connection"),
    ({"EHLO": "421 4.3.2 Later"}, 75, "421"),
    ({"MAIL": "550 5.7.1 Not from you"}, 77, "550 5.7.1 Not from you"),
    ({"MAIL": "553 5.1.7 Odd"}, 65, "553"),
    ({"MAIL": "452 4.3.1 Full"}, 75, "452"),
    ({"MAIL": DROP}, 75, "closed"),
    ({"RCPT": "550 5.1.1 Who?", "DATA": "554 5.5.1 Nobody"}, 67, "550 5.1.1 Who?"),
    ({"RCPT": "550 5.1.1 Who?", "DATA": "354 All the same"}, 67, "550 5.1.1 Who?"),
    ({"RCPT": "450 4.2.1 Later", "DATA": "554 5.5.1 Nobody"}, 75, "450"),
    ({"DATA": "451 4.3.0 Later"}, 75, "451"),
    ({"DATA": DROP}, 75, "closed"),
    ({".": "554 5.6.0 Odd"}, 65, "554 5.6.0 Odd"),
    ({".": "452 4.3.1 Full"}, 75, "452"),
    ({".": DROP}, 75, "closed"),
    ({".": RESET}, 75, ""),
]


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(("replies", "code", "text"), REFUSALS)
async def test_a_refusal_becomes_its_exit_code_and_says_why(
    replies: dict[str, str | list[str]], code: int, text: str, pipelining: bool, tmp_path: Path
) -> None:
    async with ScriptedHost(dict(replies), offers=ALL if pipelining else ALL[1:]) as host:
        ended, said = await send(host, "x@example.org")
        assert ended == code
        assert text in said
        assert "x@example.org" in said
        # With a maildrop, what would be tried again waits there; what is refused for good is not hidden in it.
        assert (await send(host, "x@example.org", drop=tmp_path))[0] == (0 if code == 75 else code)
        assert len(list(tmp_path.iterdir())) == (code == 75)


async def test_only_those_who_are_put_off_wait_in_the_maildrop(tmp_path: Path) -> None:
    replies: dict[str, str | list[str]] = {"RCPT b@example.org": "450 4.2.1 Later", "RCPT c@example.org": "550 5.1.1 Who?"}
    async with ScriptedHost(replies, offers=ALL) as host:
        code, said = await send(host, "a@example.org", "b@example.org", "c@example.org", drop=tmp_path)
    assert (code, "c@example.org: 550" in said, "b@example.org" in said) == (67, True, False)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    assert data == b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" + TEXT.replace(b"\n", b"\r\n") + b".\r\n"
    assert len(host.messages) == 1


async def test_too_many_recipients_go_in_a_further_transaction() -> None:
    async with ScriptedHost({"RCPT b@example.org": ["452 4.5.3 Too many", "250 2.1.5 Ok"]}, offers=ALL) as host:
        assert await send(host, "a@example.org", "b@example.org") == (0, "")
    assert [taken.rcpt for taken in host.messages] == [["RCPT TO:<a@example.org>"], ["RCPT TO:<b@example.org>"]]


@pytest.mark.parametrize("offers", [ALL, ALL[1:]])
@pytest.mark.parametrize("farewell", ["421 4.7.0 Too many errors", DROP])
async def test_a_relay_that_has_enough_of_bad_addresses_gets_the_good_ones_anew(offers: tuple[str, ...], farewell: str) -> None:
    replies: dict[str, str | list[str]] = {
        "RCPT bad@example.org": "550 5.1.1 Who?",
        "RCPT b@example.org": [farewell, "250 2.1.5 Ok"],
    }
    async with ScriptedHost(dict(replies), offers=offers) as host:
        code, said = await send(host, "a@example.org", "bad@example.org", "b@example.org")
        assert (code, said.count("\n"), "bad@example.org: 550" in said) == (67, 1, True)
        assert [taken.rcpt for taken in host.messages] == [["RCPT TO:<a@example.org>", "RCPT TO:<b@example.org>"]]
        # Without anybody to leave out it would end in the same way, and nobody is to be tried for ever.
        host.replies["RCPT b@example.org"] = farewell
        code, said = await send(host, "a@example.org", "bad@example.org", "b@example.org")
        assert (code, "not sent to a@example.org, b@example.org, try again later" in said) == (67, True)
        assert len(host.messages) == 1


@pytest.mark.parametrize("offers", [ALL, ALL[1:]])
async def test_so_does_a_relay_that_says_so_behind_the_last_of_them(offers: tuple[str, ...]) -> None:
    replies: dict[str, str | list[str]] = {"RCPT bad@example.org": "550 5.1.1 Who?", "DATA": ["421 4.7.0 Enough", "354 Go on"]}
    async with ScriptedHost(replies, offers=offers) as host:
        code, said = await send(host, "a@example.org", "bad@example.org")
    assert (code, said.count("\n"), "bad@example.org: 550" in said) == (67, 1, True)
    assert [taken.rcpt for taken in host.messages] == [["RCPT TO:<a@example.org>"]]


async def test_a_message_above_the_size_is_not_sent() -> None:
    async with ScriptedHost(offers=("SIZE 100",)) as host:
        code, said = await send(host, "a@example.org", text=TEXT + b"x" * 100)
    assert code == 65
    assert "the relay takes 100" in said
    assert not host.messages


@pytest.mark.parametrize(
    "address", ["a@example.org>\r\nRCPT TO:<b@example.org", "a@example.org\nDATA", "a b@example.org", "a@\udcff.org"]
)
async def test_no_address_becomes_a_command(address: str) -> None:
    async with ScriptedHost(offers=ALL) as host:
        code, said = await send(host, address)
    assert code == 65
    assert not [line for session in host.commands for line in session if line.startswith(("RCPT", "DATA"))]
    assert "\r" not in said


async def test_a_relay_that_never_greets_is_given_up_soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As one that was stopped: a web server's workers would all wait, each for minutes, before the maildrop has the mail."""
    waited: list[float | None] = []
    reply = client.Client._reply

    def noted(self: client.Client) -> list[str]:
        waited.append(self.socket.gettimeout())
        return reply(self)

    monkeypatch.setattr(client.Client, "_reply", noted)
    async with ScriptedHost(offers=ALL) as host:
        await asyncio.to_thread(client.Client, f"127.0.0.1:{host.port}")
    assert waited == [client.CONNECT_TIME, client.REPLY_TIME]
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes the connection
        monkeypatch.setattr(client, "CONNECT_TIME", 0.05)
        with pytest.raises(client.Broken, match="timed out"):
            client.Client(f"127.0.0.1:{silent.getsockname()[1]}")


async def test_a_reply_without_end_and_one_with_control_characters() -> None:
    async with ScriptedHost({"MAIL": "250-" + "x" * 200_000}, offers=ALL) as host:
        assert (await send(host, "a@example.org"))[0] == 75
    async with ScriptedHost({"MAIL": "550 5.7.1 \x1b[2Jcleared"}, offers=ALL) as host:
        assert "\x1b" not in (await send(host, "a@example.org"))[1]


@pytest.mark.parametrize("line", [1000, 1024, 3000])
@pytest.mark.parametrize("to", [("-t",), ("b@example.org",)])
async def test_a_header_that_is_too_large_is_refused_and_never_cut_in_two(to: tuple[str, ...], line: int) -> None:
    field = b"X-H: %s\n" % (b"a" * (line - 6))
    text = b"To: b@example.org\n" + field * (1_200_000 // line) + b"Bcc: secret@example.org\n\nx\n"
    async with ScriptedHost(offers=("PIPELINING", "SIZE 9000000")) as host:
        code, said = await send(host, *to, text=text)
        assert (code, "the header is too large" in said, host.messages) == (65, True, [])
        assert (await send(host, "b@example.org", text=b"To: b@example.org\n\n" + (b"x" * 900 + b"\n") * 1_300))[0] == 0
    assert len(host.messages) == 1


async def bs(host: Callable[[socket.socket], None], text: bytes, meanwhile: threading.Event | None = None) -> tuple[int, bytes]:
    """Run -bs with `text` on standard input, which stays open, read replies once `meanwhile` is set; return exit code and replies."""
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.TemporaryFile() as commands:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # the kernel is not to hold all replies

        def serve() -> None:
            with server.accept()[0] as sock:
                host(sock)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        commands.write(text)
        commands.seek(0)
        env = {"SESRELAY_SUBMIT": f"127.0.0.1:{server.getsockname()[1]}"}
        program = subprocess.Popen(
            [sys.executable, "-ISc", PROGRAM, "-bs"],
            env=env,
            stdin=commands if meanwhile else subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            if meanwhile:
                assert await asyncio.to_thread(meanwhile.wait, 30), "the commands do not arrive"
            else:
                assert program.stdin is not None
                program.stdin.write(text)
                program.stdin.flush()
            assert program.stdout is not None
            said = await asyncio.wait_for(asyncio.to_thread(program.stdout.read), 30)
            return await asyncio.wait_for(asyncio.to_thread(program.wait), 30), said
        finally:
            program.kill()
            program.wait()


async def test_bs_takes_all_commands_before_a_reply_is_read() -> None:
    arrived = threading.Event()

    def host(sock: socket.socket) -> None:
        sock.sendall(b"220 hello\r\n")
        for line in sock.makefile("rb"):
            sock.sendall(b"250 2.1.5 Ok, and more\r\n" if line != b"QUIT\r\n" else b"221 2.0.0 Bye\r\n")
        arrived.set()

    text = b"".join(b"RCPT TO:<n%d@example.org>\r\n" % n for n in range(60_000)) + b"QUIT\r\n"
    code, said = await bs(host, text, arrived)
    assert (code, said.count(b"\r\n")) == (0, 60_002)
    assert said.endswith(b"\r\n221 2.0.0 Bye\r\n")


@pytest.mark.parametrize("last", [b"", b"250 2.1.0 Ok\r\n", b"354 Go\r\n", b"250 2.1", b"421 4.3.2 Shutting down\r\n"])
async def test_bs_tells_of_a_relay_that_goes_before_its_time(last: bytes) -> None:
    def host(sock: socket.socket) -> None:
        sock.sendall(b"220 hello\r\n")
        sock.recv(1000)
        sock.sendall(last)

    code, said = await bs(host, b"EHLO x\r\n")
    assert code == 75
    assert said.count(b"\r\n421 ") == 1
    assert said.splitlines()[-1].startswith(b"421 ")


async def test_bs_ends_well_where_the_relay_says_good_bye() -> None:
    assert await bs(lambda sock: sock.sendall(b"220 x\r\n221 2.0.0 Bye\r\n"), b"QUIT\r\n") == (0, b"220 x\r\n221 2.0.0 Bye\r\n")
    gone = threading.Event()

    def host(sock: socket.socket) -> None:
        sock.sendall(b"220 x\r\n")
        while sock.recv(1000):
            pass
        sock.sendall(b"250 2.1.0 Ok\r\n")
        gone.set()

    assert (await bs(host, b"MAIL FROM:<>\r\nQUIT\r\n", gone))[0] == 75


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_bs_takes_no_connection_for_what_its_caller_has_closed(closed: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        env = {"SESRELAY_SUBMIT": f"127.0.0.1:{server.getsockname()[1]}"}
        command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-ISc", PROGRAM, "-bs"]
        assert subprocess.run(command, env=env, stdin=subprocess.DEVNULL, check=False, timeout=30).returncode == 75
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


async def test_standard_input_that_does_not_block_is_waited_for() -> None:
    source, sink = os.pipe()
    os.set_blocking(source, False)
    async with ScriptedHost(offers=ALL) as host:
        env = {"SESRELAY_SUBMIT": f"127.0.0.1:{host.port}", "SESRELAY_MAILDROP": "/nonexistent"}
        command = [sys.executable, "-ISc", PROGRAM, "-i", "-f", "a@example.com", "b@example.org"]
        program = await asyncio.create_subprocess_exec(*command, env=env, stdin=source)
        os.close(source)
        await asyncio.sleep(1)  # by now it has found nothing to read
        os.write(sink, TEXT)
        os.close(sink)
        assert await asyncio.wait_for(program.wait(), 30) == 0
    assert len(host.messages) == 1


def test_many_recipients_wait_in_files_that_the_daemon_takes(tmp_path: Path) -> None:
    everybody = [f"{n:05}{'x' * 43}@example.org" for n in range(15_000)]
    text = b"To: " + ",\n ".join(everybody).encode() + b"\nMessage-ID: <m@example.com>\n\nx\n"
    env = {"SESRELAY_SUBMIT": "127.0.0.1:1", "SESRELAY_MAILDROP": str(tmp_path)}
    command = [sys.executable, "-ISc", PROGRAM, "-t", "-i", "-f", "a@example.com"]
    assert subprocess.run(command, env=env, input=text, check=False).returncode == 0
    files = [read_dropped(str(tmp_path), path.name, 2 * len(text)) for path in tmp_path.iterdir()]
    assert len(files) > 1
    assert sorted(line for file in files for line in file.recipients) == [f"RCPT TO:<{to}>".encode() for to in everybody]


@pytest.mark.parametrize(
    "place", ["127.0.0.1:108061", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:" + "1" * 20, "unix:", "unix:/" + "x" * 107]
)
@pytest.mark.parametrize("option", ["-i", "-bs"])
def test_a_place_that_cannot_be_is_told_of(place: str, option: str) -> None:
    command = [sys.executable, "-ISc", PROGRAM, option, "a@example.org"]
    env = {"SESRELAY_SUBMIT": place, "SESRELAY_MAILDROP": "/nonexistent"}
    done = subprocess.run(command, env=env, input=TEXT, capture_output=True, check=False)
    assert (done.returncode, b"SESRELAY_SUBMIT: " in done.stderr) == (78, True)


def test_the_longest_path_of_a_socket_is_a_place() -> None:
    env = {"SESRELAY_SUBMIT": "unix:/" + "x" * 106, "SESRELAY_MAILDROP": "/nonexistent"}
    command = [sys.executable, "-ISc", PROGRAM, "a@example.org"]
    assert subprocess.run(command, env=env, input=TEXT, stderr=subprocess.DEVNULL, check=False).returncode == 75


async def test_an_envelope_id_is_measured_as_it_is_sent() -> None:
    async with ScriptedHost(offers=ALL) as host:
        assert (await send(host, "-V", "+" * 33, "x@example.org"))[0] == 0
        code, said = await send(host, "-V", "+" * 34, "x@example.org")
        assert (code, "option -V" in said) == (64, True)
        assert (await send(host, "-V", "e" * 100, "x@example.org"))[0] == 0
        assert (await send(host, "-V", "e" * 101, "x@example.org"))[0] == 64
    assert len(host.messages) == 2

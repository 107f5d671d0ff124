"""sesrelay-sendmail as programs call it: Debian's cron, PHP's mail(), s-nail, git send-email, people at a prompt."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

import peers
from clients.languages import Way
from clients.programs import Letter, git_send_email
from clients.sink import Sink
from relay_process import Relay, StandIn, ses_transport, wait_for

Taken = Callable[[str], dict[str, Any]]
SHOP = "shop@example.com"
SENDMAIL = "import sys; from sesrelay.sendmail import main; sys.exit(main())"


@pytest.fixture(scope="module")
def relay(ses: StandIn, sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    more = (
        f"transports:\n{ses_transport('ses', ses.url)}\n  sink: {{type: smtp, host: 127.0.0.1, port: {sink.port}, tls: none}}\n"
        "routes: [{sender: example.net, transport: sink}]\ndefault_route: {transport: ses}\n"
        "local: {domain: example.com, aliases: {root: ops@example.org}}\nlimits: {message_size: 8MiB, recipients: 40}\n"
    )
    relay = Relay(tmp_path_factory.mktemp("relay"), more)
    tcp = '{listen: "127.0.0.1:0"}'
    relay.config.write_text(relay.config.read_text().replace(f"[{tcp}]", f"[{tcp}, {{listen: 'unix:{relay.folder}/s'}}]", 1))
    with relay as running:
        yield running


@pytest.fixture
def env(relay: Relay, tmp_path: Path) -> dict[str, str]:
    submit = "{}:{}".format(*relay.smtp)
    return {**os.environ, "SESRELAY_SUBMIT": submit, "SESRELAY_MAILDROP": str(tmp_path / "none"), "TMPDIR": str(tmp_path)}


@pytest.fixture
def sendmail(tmp_path: Path) -> Path:
    """Return a program to be named in other programs' settings, as a distribution installs it."""
    path = tmp_path / "sbin" / "sendmail"
    path.parent.mkdir()
    source = Path(sys.modules["sesrelay"].__file__ or "").parents[1]
    launcher = (Path(__file__).parents[2] / "packaging" / "sendmail" / "sendmail").read_text()
    assert launcher.startswith("#!/usr/bin/python3 -IS\n")
    python = path.with_name("python3")
    python.symlink_to(sys.executable)  # whose own path may have a blank in it
    path.write_text(launcher.replace("/usr/bin/python3", str(python)).replace("/usr/lib/sesrelay", str(source)))
    path.chmod(0o755)
    for name in ("mailq", "newaliases"):
        path.with_name(name).symlink_to(path)
    return path


def call(program: Path, env: dict[str, str], *args: str, text: bytes = b"", code: int = 0) -> str:
    """Call it, see it end with `code`, and return what it said."""
    done = subprocess.run([program, *args], env=env, input=text, capture_output=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return (done.stdout + done.stderr).decode()


def header_and_body(raw: bytes) -> tuple[str, bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    return head.decode() + "\r\n", body


def test_debians_cron(sendmail: Path, env: dict[str, str], taken: Taken) -> None:
    text = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> run-parts\nMIME-Version: 1.0\nX-Cron-Env: <SHELL=/bin/sh>\n\nfirst\n.\nlast\n"
    assert call(sendmail, env, "-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root", text=text) == ""
    found = taken("ops@example.org")
    head, body = header_and_body(found["raw"])
    assert body == b"first\r\n.\r\nlast\r\n"
    assert "\r\nFrom: Cron Daemon <root@example.com>\r\n" in head
    assert "\r\nDate: " in head
    assert "\r\nMessage-ID: <" in head
    assert "CronDaemon" not in head
    assert found["source"].endswith("@example.com")


def test_phps_mail(sendmail: Path, env: dict[str, str], taken: Taken) -> None:
    """mail() writes its own fields with CRLF or LF, and the caller's as they are; a shell runs sendmail_path."""
    text = "To: php@example.org\r\nSubject: =?UTF-8?B?R3LDvMOfZQ==?=\r\nFrom: Shop <shop@example.com>\r\nBcc: hidden@example.org,\r\n other@example.org\r\n\r\nGrüße\n.\nBcc: not this\nend"
    done = subprocess.run(
        f"{sendmail} -t -i -f'{SHOP}'", shell=True, env=env, input=text.encode(), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    found = taken("hidden@example.org")
    assert sorted(found["destinations"]) == ["hidden@example.org", "other@example.org", "php@example.org"]
    head, _ = header_and_body(found["raw"])
    # What nobody declared to have 8 bits is encoded on its way to SES, octet for octet.
    assert message_from_bytes(found["raw"]).get_payload(decode=True) == "Grüße\r\n.\r\nBcc: not this\r\nend\r\n".encode()
    assert "bcc" not in head.lower()
    assert "hidden" not in head
    assert found["source"] == SHOP


def test_php_without_a_from(sendmail: Path, env: dict[str, str], taken: Taken) -> None:
    call(sendmail, env, "-t", "-i", "-F", 'The "Shop"', "-f", SHOP, text=b"To: nofrom@example.org\nSubject: s\n\nx\n")
    assert f'\r\nFrom: "The \\"Shop\\"" <{SHOP}>\r\n' in header_and_body(taken("nofrom@example.org")["raw"])[0]


def test_octets_arrive_as_they_were_given(sendmail: Path, env: dict[str, str], sink: Sink) -> None:
    def sent(to: str, text: bytes, *args: str) -> bytes:
        call(sendmail, env, *args, "-f", "shop@example.net", to, text=b"From: shop@example.net\nSubject: s\n\n" + text)
        # Encoded on its way where lines are too long for any host; each octet is there once that is undone.
        return bytes(message_from_bytes(sink.message(to).content).get_payload(decode=True))

    lines = [b"", b".", b"..", b".x", b"x" * 5000, bytes(range(128, 256)), b" trailing \t", b"From here", b""]
    assert sent("octets@example.org", b"\n".join(lines), "-i") == b"\r\n".join(lines)
    assert sent("crlf@example.org", b"\r\n".join(lines), "-i") == b"\r\n".join(lines)
    assert sent("no-end@example.org", b"no end", "-i") == b"no end\r\n"
    assert sent("nul@example.org", b"a\0b\rc\n", "-oi") == b"a b c\r\n"  # the relay passes no NUL and no lone CR on
    assert sent("dot@example.org", b"sent\n.\nnot sent\n") == b"sent\r\n"


def test_more_recipients_than_one_transaction_takes(sendmail: Path, env: dict[str, str], taken: Taken) -> None:
    many = [f"many{n}@example.org" for n in range(100)]
    call(sendmail, env, "-i", "-f", SHOP, *many, text=b"From: shop@example.com\n\nx\n")
    for to in (many[0], many[39], many[40], many[99]):
        assert to in taken(to)["destinations"]


def test_who_is_refused_is_named_and_the_others_have_theirs(sendmail: Path, env: dict[str, str], taken: Taken) -> None:
    text = b"To: good@example.org\nBcc: no@@example.org, two words\nFrom: shop@example.com\n\nx\n"
    said = call(sendmail, env, "-t", "-i", "-f", SHOP, "also@example.org", text=text, code=65)
    assert "not sent to no@@example.org: 553 5.1.3" in said
    assert "not sent to two words: " in said
    assert sorted(taken("good@example.org")["destinations"]) == ["also@example.org", "good@example.org"]


@pytest.mark.parametrize(
    ("args", "text", "code"),
    [
        ([], b"x\n", 64),
        (["-t"], b"Subject: nobody\n\nx\n", 64),
        (["-X/tmp/log", "a@example.org"], b"x\n", 64),
        (["-bd"], b"", 64),
        (["-f", "a b@example.com", "a@example.org"], b"x\n", 65),
        (["-f", "a@b@example.com", "a@example.org"], b"x\n", 65),
        (["--", "-oi"], b"x\n", 0),
        (["-q"], b"", 0),
        (["-bi"], b"", 0),
    ],
)
def test_exit_codes(sendmail: Path, env: dict[str, str], args: list[str], text: bytes, code: int) -> None:
    said = call(sendmail, env, *args, text=text, code=code)
    assert bool(said) == bool(code)


@pytest.mark.parametrize(("submit", "code"), [("127.0.0.1:1", 75), ("unix:/nonexistent/socket", 75), ("nowhere", 78)])
def test_without_a_relay(sendmail: Path, env: dict[str, str], submit: str, code: int) -> None:
    said = call(sendmail, {**env, "SESRELAY_SUBMIT": submit}, "a@example.org", text=b"x\n", code=code)
    assert said.startswith("sendmail: ")
    assert "Traceback" not in said


def test_the_unix_socket(sendmail: Path, env: dict[str, str], relay: Relay) -> None:
    text = b"From: shop@example.com\nMessage-ID: <by-unix-socket@example.com>\n\nx\n"
    call(sendmail, {**env, "SESRELAY_SUBMIT": f"unix:{relay.folder}/s"}, "-i", "-f", SHOP, "unix@example.org", text=text)
    shown = relay.trace("by-unix-socket@example.com")
    assert shown["listener"] == f"unix:{relay.folder}/s"


def test_nobody_hears_of_a_refusal(sendmail: Path, env: dict[str, str]) -> None:
    """Standard error closed, or a pipe that nobody reads: the exit code tells all the same."""
    for closed in ("2>&-", "2>&1 >/dev/null | :"):
        shell = ["/bin/bash", "-c", f'set -o pipefail; "$0" -i no@@example.org </dev/null {closed}', sendmail]
        assert subprocess.run(shell, env=env, check=False).returncode == 65


def test_large_messages_and_endless_ones_take_no_memory(sendmail: Path, env: dict[str, str], taken: Taken) -> None:
    def send(to: str, size: int) -> tuple[int, str]:
        """Return exit code and stderr; stop writing when it stops reading."""
        # 20 MiB of data for all of Python
        command = ["/bin/sh", "-c", 'ulimit -d 20480; exec "$0" "$@"', sendmail, "-i", "-f", SHOP, to]
        program = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        piece = (b"." * 70 + b"\n") * 10_000

        def feed() -> None:
            assert program.stdin is not None
            try:
                program.stdin.write(b"From: shop@example.com\n\n")
                for _ in range(size // len(piece)):
                    program.stdin.write(piece)
                program.stdin.close()
            except BrokenPipeError:
                pass

        feeder = threading.Thread(target=feed)
        feeder.start()
        assert program.stderr is not None
        said = program.stderr.read().decode()
        feeder.join()
        return program.wait(), said

    assert send("large@example.org", 7_000_000) == (0, "")
    assert len(taken("large@example.org")["raw"]) > 6_000_000
    code, said = send("endless@example.org", 1 << 30)
    assert code == 65
    assert "8388608 octets" in said


def test_it_never_waits_for_more_than_the_lone_dot(sendmail: Path, env: dict[str, str], taken: Taken) -> None:
    """As a person types it, with standard input still open behind the dot."""
    program = subprocess.Popen([sendmail, "-f", SHOP, "typed@example.org"], env=env, stdin=subprocess.PIPE)
    assert program.stdin is not None
    for line in (b"From: shop@example.com\n", b"\n", b"hello\n", b".\n"):
        program.stdin.write(line)
        program.stdin.flush()
    assert program.wait(30) == 0
    program.stdin.close()
    assert header_and_body(taken("typed@example.org")["raw"])[1] == b"hello\r\n"


def test_bs_speaks_smtp_to_programs_and_people(sendmail: Path, env: dict[str, str], taken: Taken) -> None:
    dialogue = f"EHLO x\r\nMAIL FROM:<{SHOP}>\r\nRCPT TO:<%s>\r\nDATA\r\nFrom: {SHOP}\r\n\r\nx\r\n..\r\n.\r\nQUIT\r\n"
    said = call(sendmail, env, "-bs", text=(dialogue % "program@example.org").encode())
    assert said.splitlines()[-1].startswith("221 ")
    call(sendmail, env, "-bs", text=(dialogue % "person@example.org").replace("\r", "").encode())
    for to in ("program@example.org", "person@example.org"):
        assert header_and_body(taken(to)["raw"])[1] == b"x\r\n.\r\n"
    assert call(sendmail, env, "-bs", text=b"NOOP\r\n").count("\r\n") == 2  # half-closed without QUIT: answered, and over
    assert call(sendmail, {**env, "SESRELAY_SUBMIT": "127.0.0.1:1"}, "-bs", code=75).startswith("421 4.3.2 ")


def test_mailq_runs_the_operators_command(sendmail: Path, env: dict[str, str], tmp_path: Path) -> None:
    command = sendmail.with_name("sesrelay")
    command.write_text('#!/bin/sh\necho "called with $*"\n')
    command.chmod(0o755)
    for args in ((sendmail.with_name("mailq"),), (sendmail.with_name("mailq"), "-Ac"), (sendmail, "-bp")):
        assert call(args[0], env, *args[1:]) == "called with queue list\n"
    command.unlink()
    shutil.copytree(sendmail.parent, tmp_path / "alone", symlinks=True)
    alone = {**env, "PATH": str(tmp_path)}
    program = f"import sys; sys.argv[0] = 'mailq'; sys.executable = '/nonexistent/python'; {SENDMAIL[12:]}"
    for closed in ("", ">&-"):
        command_line = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", program]
        done = subprocess.run(command_line, env=alone, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, "there is no sesrelay" in done.stderr) == (69, True)


def test_newaliases_has_nothing_to_do(sendmail: Path, env: dict[str, str]) -> None:
    assert call(sendmail.with_name("newaliases"), env) == ""


def test_dsn_options_reach_the_relay(sendmail: Path, env: dict[str, str], relay: Relay) -> None:
    args = ("-i", "-f", SHOP, "-N", "success,delay", "-R", "hdrs", "-V", "order+42", "dsn@example.org")
    call(sendmail, env, *args, text=b"From: shop@example.com\nMessage-ID: <dsn-options@example.com>\n\nx\n")
    shown = relay.trace("dsn-options@example.com")
    assert shown["sender"] == SHOP


def test_s_nail(sendmail: Path, env: dict[str, str], taken: Taken, tmp_path: Path) -> None:
    program = peers.require("s-nail")
    options = [f"-S{option}" for option in ("v15-compat", f"mta={sendmail}", f"from={SHOP}", "sendwait", "ttycharset=utf-8")]
    more = {**program.env, **env, "MAILRC": "/dev/null", "LC_ALL": "C.UTF-8", "HOME": str(tmp_path)}
    command = program.command("-:/", *options, "-s", "an order", "-b", "snail-bcc@example.org", "snail@example.org")
    done = subprocess.run(command, env=more, input=b"Gr\xc3\xbc\xc3\x9fe\n.\n", capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = taken("snail@example.org")
    assert sorted(found["destinations"]) == ["snail-bcc@example.org", "snail@example.org"]
    head, _ = header_and_body(found["raw"])
    assert "Subject: an order" in head
    assert "snail-bcc" not in head
    assert found["source"] == SHOP


def test_git_send_email(sendmail: Path, env: dict[str, str], taken: Taken, tmp_path: Path) -> None:
    (tmp_path / ".gitconfig").write_text(f"[sendemail]\n\tsmtpserver = {sendmail}\n\tenvelopeSender = {SHOP}\n")
    letter = Letter(SHOP, ("patches@example.org",), "Grüße\r\n.\r\n---\r\n diff\r\n")
    done = git_send_email(Way("", 0), letter, tmp_path, configured=True, env=env)
    assert done.code == 0, done.said
    found = taken("patches@example.org")
    assert found["source"] == SHOP
    assert header_and_body(found["raw"])[1].startswith("Grüße\r\n.\r\n---\r\n diff\r\n".encode())


def test_the_relay_killed_in_the_middle_is_a_reason_to_try_again(
    sendmail: Path, env: dict[str, str], ses: StandIn, tmp_path: Path
) -> None:
    """Whatever the moment: 0 and it is stored, or 75; with a maildrop 0 always."""
    (tmp_path / "own").mkdir()
    (tmp_path / "drop").mkdir()
    park = "transports: {park: {type: hold}}\ndefault_route: {transport: park}"
    relay = Relay(tmp_path / "own", park)
    codes: list[int] = []

    def send(n: int) -> None:
        where = {"SESRELAY_SUBMIT": submit, "SESRELAY_MAILDROP": str(tmp_path / ("drop" if n % 2 else "none"))}
        text = b"Message-ID: <kill%d@example.com>\n\nx\n" % n
        done = subprocess.run(
            [sendmail, "-i", "-f", SHOP, f"kill{n}@example.org"], env={**env, **where}, input=text, capture_output=True, check=False
        )
        codes.append(done.returncode if n % 2 == 0 or done.returncode == 0 else 1000)
        if done.returncode == 0 and n % 2 == 0:
            promised.add(n)

    promised: set[int] = set()
    with relay:
        submit = "{}:{}".format(*relay.smtp)
        threads = [threading.Thread(target=send, args=(n,)) for n in range(24)]
        for n, thread in enumerate(threads):
            thread.start()
            if n == 16:
                relay.kill()
        for thread in threads:
            thread.join()
    assert set(codes) <= {0, 75}
    assert 75 in codes
    dropped = {int(path.read_bytes().partition(b"TO:<kill")[2].partition(b"@")[0]) for path in (tmp_path / "drop").iterdir()}
    with Relay(tmp_path / "own", park) as again:
        command = [sys.executable, "-m", "sesrelay", "queue", "list", "--json", "--config", str(again.config)]
        listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    stored = {int(one["recipient"][4:].partition("@")[0]) for one in listed}
    assert promised <= stored
    assert set(range(1, 24, 2)) <= stored | dropped


def test_the_daemon_is_told_all_it_needs(sendmail: Path, env: dict[str, str], relay: Relay) -> None:
    call(
        sendmail,
        env,
        "-i",
        "-f",
        "",
        "bounce@example.org",
        text=b"From: shop@example.com\nMessage-ID: <null-sender@example.com>\n\nx\n",
    )
    assert wait_for("it is there", lambda: relay.trace("null-sender@example.com"))["sender"] == ""

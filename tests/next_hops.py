"""Real mail servers as the next hop, each with mailboxes in a folder, and mail that is easily harmed on its way there.

Invariant: they run from temporary folders on loopback, nothing is installed, and stopping leaves nothing running.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import ClassVar

import dkim

import peers
from batches import unused_port
from postfix_folder import prepare
from relay_process import Relay, wait_for
from small_dns import SmallDns

START_SECONDS = 30.0
DOMAIN = "example.org"


class NextHop:
    """A mail server that puts every message for example.org into a Maildir. A context manager."""

    name: ClassVar[str]

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why it cannot run on this machine, or None."""
        raise NotImplementedError

    def command(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        """Fill the folder and return what to run."""
        raise NotImplementedError

    def __enter__(self) -> NextHop:
        self._temporary = tempfile.TemporaryDirectory(prefix="next-hop-", ignore_cleanup_errors=True)
        folder = Path(self._temporary.name)
        folder.chmod(0o755)  # a mail server's processes are not all root's
        self.port = unused_port()
        self.mailbox = folder / "mail" / "box"
        self._log = folder / "out"
        command, env = self.command(folder)
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder)
        self._wait()
        return self

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
                    if sock.recv(512).startswith(b"220"):
                        sock.sendall(b"QUIT\r\n")
                        return
            except OSError:
                time.sleep(0.05)
        self.__exit__()
        raise RuntimeError(f"{self.name} did not come up")

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._temporary.cleanup()

    def received(self) -> list[bytes]:
        """Return every message that is in the mailbox."""
        return [file.read_bytes() for file in (self.mailbox / "new").glob("*")] if self.mailbox.exists() else []

    def count(self) -> int:
        return len(os.listdir(self.mailbox / "new")) if (self.mailbox / "new").exists() else 0


class Postfix(NextHop):
    """Debian's, with its defaults."""

    name = "Postfix"

    @classmethod
    def unavailable(cls) -> str | None:
        if os.geteuid() != 0:
            return "Postfix's master wants to be started by root"
        return None if peers.find("postfix") else "postfix is not here: `make test` unpacks it where apt and a network are"

    def command(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        postfix = peers.find("postfix")
        assert postfix is not None
        nobody = pwd.getpwnam("nobody")
        self.mailbox.parent.mkdir()
        os.chown(self.mailbox.parent, nobody.pw_uid, nobody.pw_gid)
        settings = (
            f"virtual_mailbox_domains = {DOMAIN}\nvirtual_mailbox_base = {self.mailbox.parent}\nvirtual_mailbox_maps = static:box/\n"
            f"virtual_minimum_uid = 1\nvirtual_uid_maps = static:{nobody.pw_uid}\nvirtual_gid_maps = static:{nobody.pw_gid}\n"
            "smtpd_client_connection_count_limit = 100\n"
            "local_header_rewrite_clients =\n"  # no Date of its own under the signature
        )
        services = f"127.0.0.1:{self.port} inet n - n - - smtpd\nvirtual unix - n n - - virtual\n"
        return prepare(postfix, folder, services, settings)


class Exim(NextHop):
    """Debian's light daemon, as careful about long lines as its default configuration is."""

    name = "Exim"

    @classmethod
    def unavailable(cls) -> str | None:
        wanted = "exim4 and libnss_wrapper are not here: `make test` unpacks them where apt and a network are"
        return None if peers.find("exim4") and _nss_wrapper() else wanted

    def command(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        exim, wrapper = peers.find("exim4"), _nss_wrapper()
        assert exim is not None and wrapper is not None
        me = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        for name in ("mail", "spool", "log"):
            (folder / name).mkdir()
            os.chown(folder / name, me.pw_uid, me.pw_gid)
        # The account that its binary was built for, under another's number: nothing is installed here.
        (folder / "passwd").write_text(
            f"root:x:0:0::/:/bin/sh\nDebian-exim:x:{me.pw_uid}:{me.pw_gid}::/:/bin/false\nme:x:{me.pw_uid}:{me.pw_gid}::/:/bin/false\n"
        )
        (folder / "group").write_text(f"root:x:0:\nDebian-exim:x:{me.pw_gid}:\nmine:x:{me.pw_gid}:\n")
        config = folder / "exim.conf"
        config.write_text(EXIM_CONF.format(folder=folder, port=self.port, exim=exim.path, mailbox=self.mailbox))
        config.chmod(0o644)
        preload = folder / wrapper.name
        preload.symlink_to(wrapper)  # whose path may have a blank in it, which ends a name in LD_PRELOAD
        env = {
            **exim.env,
            "LD_PRELOAD": str(preload),
            "NSS_WRAPPER_PASSWD": str(folder / "passwd"),
            "NSS_WRAPPER_GROUP": str(folder / "group"),
        }
        return exim.command("-C", config, "-bdf"), env


HOPS: tuple[type[NextHop], ...] = (Postfix, Exim)


def _nss_wrapper() -> Path | None:
    places = [*peers.ROOT.glob("usr/lib/*/libnss_wrapper.so"), *Path("/usr/lib").glob("*/libnss_wrapper.so")]
    return places[0] if places else None


EXIM_CONF = """\
exim_path = {exim}
exim_user = me
exim_group = mine
never_users =
primary_hostname = mx.example.org
qualify_domain = example.org
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path =
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
tls_advertise_hosts =
acl_smtp_rcpt = accept
acl_smtp_data = check_data
smtp_accept_max = 200
smtp_accept_queue_per_connection = 0
# its children are the same unpacked program
keep_environment = ^LD_ : ^NSS_
add_environment =
begin acl
check_data:
  deny condition = ${{if > {{$max_received_linelength}}{{998}}}}
       message = maximum allowed line length is 998 octets, got $max_received_linelength
  accept
begin routers
all:
  driver = accept
  transport = maildir
begin transports
maildir:
  driver = appendfile
  directory = {mailbox}
  maildir_format
  create_directory
  user = me
  group = mine
"""

# --- mail on its way ---

SENDERS = {"a@example.com": "hop", "a@example.net": "direct"}


def journey(hop: NextHop, folder: Path, rounds: int) -> tuple[int, list[str]]:
    """Send all of the corpus so many times to `hop`, by a relay's route and by MX, signed; return how many, and what went wrong."""
    made = corpus()
    with name_server(SmallDns({(DOMAIN, "MX"): [f"10 mx.{DOMAIN}."], (f"mx.{DOMAIN}", "A"): ["127.0.0.1"]})) as dns:
        relay = Relay(folder, "{}")
        keys = {domain: generated_key(relay, domain) for domain in ("example.com", "example.net")}
        signing = ", ".join(f"{domain}: {{selector: s1, key_file: s1.{domain}.pem}}" for domain in keys)
        relay.write(
            f"transports:\n  hop: {{type: smtp, host: 127.0.0.1, port: {hop.port}, dkim: {{{signing}}}}}\n"
            f"  direct: {{type: direct, port: {hop.port}, nameservers: ['{dns.nameserver}'], allow_private_addresses: true, race_addresses: true, "
            f"dkim: {{{signing}}}}}\n"
            "routes: [{sender: example.com, transport: hop}]\n"
        )
        with relay:
            ids = [
                relay.submit(sender, f"b@{DOMAIN}", numbered(kind, content, number, sender))
                for number, sender in enumerate(list(SENDERS) * rounds)
                for kind, content in made.items()
            ]
            ends = [relay.ended(queue_id, 120.0)[0] for queue_id in ids]
            wrong = [f"{end['id']}: {end['reply']}" for end in ends if end["state"] != "delivered"]
            ways = {SENDERS[end["sender"]] == end["transport"] for end in ends}
            wait_for("all are in the mailbox", lambda: hop.count() >= len(ids) - len(wrong))
    received = hop.received()
    wrong += harmed(received, made, rounds * len(SENDERS)) + unsigned(received, keys)
    return len(ids), wrong + ([] if ways == {True} else ["some went another way"])


def generated_key(relay: Relay, domain: str) -> bytes:
    """Make a key as users do, beside the configuration, and return the record that goes into the DNS."""
    done = relay.run("dkim", "generate", domain, "--selector", "s1", "--type", "ed25519", "--json")
    return str(json.loads(done.stdout)["records"][0]["value"]).encode()


def unsigned(received: Sequence[bytes], keys: Mapping[str, bytes]) -> list[str]:
    """Return the messages whose signature does not hold."""

    def record(name: bytes, timeout: int = 5) -> bytes:
        return keys[name.decode().rstrip(".").partition("._domainkey.")[2]]

    found = []
    for message in received:
        content = message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")  # a Maildir has line feeds
        if not dkim.verify(content, dnsfunc=record):
            found.append(f"{kind_and_number(message)} has no signature that holds")
    return found


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


# --- mail ---

PICTURE = bytes(range(256)) * 64


def corpus() -> dict[str, bytes]:
    """Return messages without their Subject, each of a kind that is easily harmed."""
    made: dict[str, bytes] = {
        "plain": _plain("Hello.\r\n"),
        "dots": _plain(".\r\n..\r\n.dot\r\n...\r\n"),
        "8-bit text": _typed("text/plain; charset=utf-8", "8bit", "Grüße, 你好 🦊\r\n.\r\n".encode()),
        "latin text": _typed("text/plain; charset=iso-8859-1", "8bit", "caf\xe9\r\n".encode("latin-1")),
        "8-bit undeclared": b"\r\ncaf\xe9 \xa4\r\n",
    }
    mixed = EmailMessage(policy=email.policy.SMTP)
    mixed.set_content("Siehe Anhang: Übersicht.\n", cte="8bit")
    mixed.add_attachment(PICTURE, maintype="image", subtype="png", filename="Übersicht.png")
    mixed.add_attachment("a;b\r\nü;ß\r\n".encode(), maintype="text", subtype="csv", filename="t.csv", cte="8bit")
    made["attachments"] = mixed.as_bytes()
    line = "<p>" + "Ein langer Absatz ohne Umbruch, wie ihn Programme schreiben. " * 120 + "</p>\r\n"
    made["long lines"] = _typed("text/html; charset=utf-8", "8bit", line.encode())
    made["long ASCII line"] = _plain("word " * 1000 + "\r\n")
    return made


def numbered(kind: str, content: bytes, number: int, sender: str) -> bytes:
    """Return the message with a Subject by which it is found again."""
    return f"From: {sender}\r\nTo: b@{DOMAIN}\r\nSubject: {kind} #{number}\r\n".encode() + content


def kind_and_number(message: bytes) -> tuple[str, int]:
    found = re.search(rb"^Subject: (.*) #(\d+)\r?$", message, re.M)
    assert found is not None
    return found[1].decode(), int(found[2])


def parts(message: bytes) -> list[tuple[str, str | None, bytes]]:
    """Return what a reader sees: type, file name and decoded octets of each part, line ends and the last one aside."""
    found = []
    for part in email.message_from_bytes(message, policy=email.policy.default).walk():
        if not part.is_multipart():
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            text = part.get_content_maintype() == "text"
            seen = payload.replace(b"\r\n", b"\n").rstrip(b"\n") if text else payload
            found.append((part.get_content_type(), part.get_filename(), seen))
    return found


def harmed(received: Sequence[bytes], made: dict[str, bytes], numbers: int) -> list[str]:
    """Return what is missing, twice there or not as it was sent, in words."""
    wrong: list[str] = []
    seen: set[tuple[str, int]] = set()
    for message in received:
        key = kind_and_number(message)
        if key in seen:
            wrong.append(f"{key} is there twice")
        seen.add(key)
        if parts(message) != parts(numbered(key[0], made[key[0]], key[1], "a@example.com")):
            wrong.append(f"{key} is not as it was sent: {message[-200:]!r}")
    return wrong + [f"{key} is missing" for key in {(kind, n) for kind in made for n in range(numbers)} - seen]


def _plain(text: str) -> bytes:
    return b"\r\n" + text.encode()


def _typed(content_type: str, encoding: str, body: bytes) -> bytes:
    head = f"MIME-Version: 1.0\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + body

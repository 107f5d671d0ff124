"""Programs that people send mail with from a shell, each as a way to hand one message to a relay."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import peers
from clients.languages import Way

MESSAGE = "From: {sender}\r\nTo: {to}\r\nSubject: an order\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{text}"


@dataclass(frozen=True, slots=True)
class Letter:
    """One message; `text` has SMTP's line ends."""

    sender: str
    to: tuple[str, ...]
    text: str = "Hello\r\n"

    def write(self, folder: Path) -> Path:
        """Write it with its header; return the file."""
        path = folder / "message.eml"
        content = MESSAGE.format(sender=self.sender, to=", ".join(self.to), text=self.text)
        path.write_bytes(content.encode())
        return path


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    said: str


def run(program: peers.Program, *args: str | Path, text: bytes = b"", env: Mapping[str, str] | None = None) -> Done:
    """Run to the end."""
    done = subprocess.run(
        program.command(*args), env={**program.env, **(env or {})}, input=text, capture_output=True, timeout=60, check=False
    )
    return Done(done.returncode, (done.stdout + done.stderr).decode(errors="replace"))


def swaks(way: Way, letter: Letter, folder: Path, *more: str) -> Done:
    args = ["--server", way.host, "--port", str(way.port), "--from", letter.sender, "--to", ",".join(letter.to), "--timeout", "20"]
    args += {"none": [], "starttls": ["--tls"], "implicit": ["--tls-on-connect"]}[way.tls]
    if way.ca:
        args += ["--tls-verify", "--tls-ca-path", way.ca]
    if way.user is not None:
        args += ["--auth", "--auth-user", way.user, "--auth-password", str(way.password)]
    return run(peers.require("swaks"), *args, "--data", f"@{letter.write(folder)}", *more)


def msmtp(way: Way, letter: Letter, folder: Path, *more: str) -> Done:
    args = ["--file=/dev/null", f"--host={way.host}", f"--port={way.port}", f"--from={letter.sender}", "--timeout=20", *more]
    if way.tls != "none":
        args += ["--tls=on", f"--tls-starttls={'on' if way.tls == 'starttls' else 'off'}", f"--tls-trust-file={way.ca}"]
    if way.user is not None:
        args += ["--auth=plain", f"--user={way.user}", f"--passwordeval=echo '{way.password}'"]
    # It reads Unix text and writes SMTP's line ends itself.
    return run(peers.require("msmtp"), *args, "--", *letter.to, text=letter.write(folder).read_bytes().replace(b"\r\n", b"\n"))


def s_nail(way: Way, letter: Letter, folder: Path, *more: str) -> Done:
    login = f"{quote(way.user, safe='')}:{quote(str(way.password), safe='')}@" if way.user is not None else ""
    scheme = "smtps" if way.tls == "implicit" else "smtp"
    options = [
        "v15-compat",
        f"mta={scheme}://{login}{way.host}:{way.port}",
        f"from={letter.sender}",
        "sendwait",
        "mime-encoding=8bit",
    ]
    options += [f"smtp-auth={'plain' if way.user is not None else 'none'}", "DEAD=/dev/null"]
    if way.tls == "starttls":
        options.append("smtp-use-starttls")
    if way.ca:
        options.append("tls-verify=ignore")  # it knows no addresses in certificates
    env = {"MAILRC": "/dev/null", "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    args = ["-:/", *(f"-S{option}" for option in options), "-s", "an order", *more, *letter.to]
    return run(peers.require("s-nail"), *args, text=letter.text.replace("\r\n", "\n").encode(), env=env)


def curl(way: Way, letter: Letter, folder: Path, *more: str) -> Done:
    scheme = "smtps" if way.tls == "implicit" else "smtp"
    args = ["-sSv", "-q", "--noproxy", "*", f"{scheme}://{way.host}:{way.port}/client.example.com", "--mail-from", letter.sender]
    args += [part for to in letter.to for part in ("--mail-rcpt", to)]
    if way.tls == "starttls":
        args.append("--ssl-reqd")
    if way.ca:
        args += ["--cacert", way.ca]
    if way.user is not None:
        args += ["--user", f"{way.user}:{way.password}"]
    return run(peers.require("curl"), *args, "--upload-file", letter.write(folder), *more)


def git_send_email(
    way: Way, letter: Letter, folder: Path, *, configured: bool = False, env: Mapping[str, str] | None = None
) -> Done:
    """Send a patch; `configured`: all about SMTP stands in `folder`/.gitconfig."""
    places = [
        place for place in (Path("/usr/lib/git-core"), peers.ROOT / "usr/lib/git-core") if (place / "git-send-email").exists()
    ]
    if not places:
        peers.missing("git send-email is not here: `make test` unpacks it where apt and a network are, or install git-email")
    patch = folder / "0001-order.patch"
    head = f"From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\nFrom: {letter.sender}\nDate: Sun, 1 Nov 2026 12:00:00 +0000\nSubject: [PATCH] an order\n"
    head += "MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\n"
    patch.write_text(head + letter.text.replace("\r\n", "\n"), encoding="utf-8")
    args = ["send-email", "--from", letter.sender, *(f"--to={to}" for to in letter.to)]
    args += ["--confirm=never", "--suppress-cc=all", "--no-thread", "--no-validate", "--transfer-encoding=8bit"]
    if not configured:
        args += [f"--smtp-server={way.host}", f"--smtp-server-port={way.port}", "--smtp-domain=client.example.com"]
    if way.tls != "none":
        args.append(f"--smtp-encryption={'tls' if way.tls == 'starttls' else 'ssl'}")
    if way.ca:
        args.append(f"--smtp-ssl-cert-path={way.ca}")
    if way.user is not None:
        args += [f"--smtp-user={way.user}", f"--smtp-pass={way.password}"]
    # Perl's modules as unpacked, but libraries of the machine for git itself.
    given = {
        **peers.environment(),
        **(env or {}),
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }
    given["PATH"] = f"{places[0]}:{os.environ['PATH']}"
    for name, value in (("GIT_AUTHOR_NAME", "shop"), ("GIT_AUTHOR_EMAIL", letter.sender)):
        given[name] = given[name.replace("AUTHOR", "COMMITTER")] = value
    return run(peers.Program(peers.require("git").path, given), *args, patch)


@dataclass(frozen=True, slots=True)
class Shell:
    name: str
    send: Callable[..., Done]
    long_lines: bool = True
    """It leaves lines of 998 octets alone."""

    def __str__(self) -> str:
        return self.name


PROGRAMS = (
    Shell("swaks", swaks),
    Shell("msmtp", msmtp),
    Shell("s-nail", s_nail, long_lines=False),
    Shell("curl", curl),
    Shell("git-send-email", git_send_email, long_lines=False),
)

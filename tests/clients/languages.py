"""Interpreters with the mail libraries that are unpacked under .cache/peers, and the drivers that use them.

Invariant: an unpacked interpreter finds all of itself in the unpacked tree; the machine's own finds the libraries there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import peers
from peers import ROOT, Program

DRIVERS = Path(__file__).parent / "drivers"
# What Debian's php loads by configuration files that only an installation writes; those that need others stand last.
PHP_EXTENSIONS = ("ctype", "iconv", "intl", "mbstring", "tokenizer", "sockets", "xml", "dom")


def _with(program: Program, *first: str, **env: str) -> Program:
    return replace(program, first=first, env={**program.env, **env})


def php() -> Program:
    program = peers.require("php")
    path = f".:/usr/share/php:{ROOT}/usr/share/php"
    first = ["-d", f"include_path={path}", "-d", "display_errors=stderr", "-d", "memory_limit=256M"]
    if program.unpacked:
        folder = max(ROOT.glob("usr/lib/php/20*"))
        there = [name for name in PHP_EXTENSIONS if (folder / f"{name}.so").exists()]
        first += ["-n", "-d", f"extension_dir={folder}", *(part for name in there for part in ("-d", f"extension={name}"))]
    return _with(program, *first)


def ruby() -> Program:
    program = peers.require("ruby")
    places = ["usr/lib/ruby/vendor_ruby", "usr/lib/*/ruby/vendor_ruby/[0-9]*"]
    if program.unpacked:
        places += ["usr/lib/ruby/[0-9]*", "usr/lib/*/ruby/[0-9]*", "usr/lib/ruby/gems/*/gems/*/lib"]
    gems = ["usr/share/rubygems-integration/all", "usr/lib/*/rubygems-integration/[0-9]*", "usr/lib/ruby/gems/[0-9]*"]
    return _with(program, RUBYLIB=_join(places, [ROOT]), GEM_PATH=_join(gems, [ROOT, Path("/")]), LANG="C.UTF-8")


def _join(patterns: Iterable[str], roots: Iterable[Path]) -> str:
    return ":".join(str(folder) for root in roots for pattern in patterns for folder in sorted(root.glob(pattern)))


def node() -> Program:
    return _with(peers.require("node"), NODE_PATH=f"{ROOT}/usr/share/nodejs:/usr/share/nodejs")


def perl() -> Program:
    return replace(peers.require("perl"), env=peers.environment())


def python() -> Program:
    return Program(Path(sys.executable), dict(os.environ))


@dataclass(frozen=True, slots=True)
class Library:
    """A mail library by its driver. `keeps` tells that it sends several messages over one connection."""

    name: str
    language: Callable[[], Program]
    driver: str
    keeps: bool = True
    mime: bool = True
    """It composes the message; otherwise the content is the program's own, octet for octet."""
    dsn: bool = False

    def __str__(self) -> str:
        return self.name


LIBRARIES = (
    Library("smtplib", python, "python_smtplib.py", dsn=True),
    Library("Django", python, "django_mail.py"),
    Library("PHPMailer", php, "phpmailer.php", dsn=True),
    Library("Symfony", php, "symfony.php"),
    Library("PEAR", php, "pear.php", mime=False),
    Library("nodemailer", node, "nodemailer.js", dsn=True),
    Library("ruby-mail", ruby, "ruby_mail.rb"),
    Library("ActionMailer", ruby, "action_mailer.rb", keeps=False),
    Library("Net::SMTP", perl, "net_smtp.pl", mime=False, dsn=True),
)
BY_NAME = {library.name: library for library in LIBRARIES}


@dataclass(frozen=True, slots=True)
class Way:
    """How a driver reaches the relay."""

    host: str
    port: int
    tls: str = "none"
    ca: str | None = None
    user: str | None = None
    password: str | None = None


def mail(sender: str, to: str | Iterable[str], **more: Any) -> dict[str, Any]:
    """Return a message as the drivers take it."""
    told: dict[str, Any] = {"cc": [], "bcc": [], "subject": "an order", "text": "Hello\n", "attachment": None, "dsn": ""}
    return {**told, "sender": sender, "to": [to] if isinstance(to, str) else list(to), **more}


@dataclass(frozen=True, slots=True)
class Drive:
    """A driver's run: what it says of each message."""

    told: list[dict[str, Any]] = field(default_factory=list)

    @property
    def error(self) -> str:
        """Return what it says of the one message that was refused."""
        (one,) = self.told
        assert not one["ok"]
        return str(one["error"])


def drive(
    program: Program,
    driver: str | Path,
    way: Way,
    *mails: Mapping[str, Any],
    env: Mapping[str, str] | None = None,
    **more: Any,
) -> Drive:
    """Run a driver to its end and return what it tells; `more` goes into its request."""
    settings = {name: getattr(way, name) for name in Way.__slots__}
    request = json.dumps({"settings": settings, "mails": mails, **more})
    done = subprocess.run(
        program.command(DRIVERS / driver),
        env={**program.env, **(env or {})},
        input=request.encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, said
    try:
        return Drive(json.loads(done.stdout))
    except ValueError:
        raise AssertionError(said) from None


def send(library: Library, way: Way, *mails: Mapping[str, Any]) -> Drive:
    """Send by a library as it comes."""
    return drive(library.language(), library.driver, way, *mails)

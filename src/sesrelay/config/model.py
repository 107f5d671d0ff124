"""The whole configuration as one frozen value. Every key is documented on its field.

Invariant: a key whose feature is not built is accepted at its default only (`unsupported`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from sesrelay.config.machine import has_ipv6, machine_name
from sesrelay.config.part import Part
from sesrelay.config.routes import Expectation, NullSenderRoute, Route, Target
from sesrelay.config.transports import DirectTransport, Transport
from sesrelay.config.values import (
    LOOPBACK,
    Address,
    Crossed,
    DelayWarning,
    Domain,
    Duration,
    FilePath,
    HostPort,
    ListenText,
    LocalUser,
    MailListenText,
    Name,
    NetworkValue,
    NotSupported,
    Pattern,
    Patterns,
    Size,
    UserName,
    Whole,
    host_port,
    unsupported,
)
from sesrelay.mail.address import unquoted
from sesrelay.policy.budget import MEMORY

RUN_DIR = Path("/run/sesrelay")
STATE_DIR = Path("/var/lib/sesrelay")
MAILDROP = Path("/var/spool/sesrelay/maildrop")
SITE_KEYS = ("transports", "routes", "access", "expect", "feedback")


class Listener(Part):
    """One address on which sesrelay accepts mail."""

    listen: MailListenText = Field(
        description="`HOST:PORT`, where HOST is an IP address (IPv6 in brackets), or `unix:PATH` for a socket."
    )
    tls: Literal["none", "starttls", "implicit"] = Field(
        "none", description="`starttls`: clients may use STARTTLS. `implicit`: TLS from the first octet (port 465)."
    )
    auth: Literal["none", "optional", "required", "any"] = Field(
        "none",
        description="Whether clients log in: `none`, `optional`, `required`, or `any` (loopback only, accepts every password).",
    )
    certificate: FilePath | None = Field(None, description="The TLS certificate (PEM): the server's own first, then its chain.")
    key: FilePath | None = Field(None, description="The private key (PEM) of `certificate`.")

    @property
    def address(self) -> HostPort:
        return host_port(self.listen)

    @model_validator(mode="after")
    def _files_of_tls(self) -> Listener:
        files = {"certificate": self.certificate, "key": self.key}
        if self.tls == "none":
            wrong = [(name, "has no effect (set tls: starttls or implicit)") for name, file in files.items() if file]
        else:
            wrong = [
                (name, f"missing (tls: {self.tls} needs a certificate and its key)") for name, file in files.items() if not file
            ]
        if wrong:
            raise Crossed(wrong)
        return self


def _default_listeners() -> tuple[Listener, ...]:
    listeners = (Listener(listen="127.0.0.1:25"),)
    return (*listeners, Listener(listen="[::1]:25")) if has_ipv6() else listeners


class User(Part):
    """A user who logs in to send mail."""

    name: UserName = Field(description="The user name for AUTH.")
    password_hash: SecretStr | None = Field(None, description="An argon2 hash; `sesrelay password-hash` creates one.")
    password_hash_file: FilePath | None = Field(None, description="The file or systemd credential that contains `password_hash`.")
    senders: tuple[Pattern, ...] = Field((), description="The sender domains that this user, and nobody else, may use.")

    @model_validator(mode="after")
    def _one_hash(self) -> User:
        if self.password_hash and self.password_hash_file:
            raise Crossed([("password_hash_file", "password_hash is set too (use only one of the two)")])
        if not self.password_hash and not self.password_hash_file:
            raise Crossed([("", "has no password (add password_hash or password_hash_file)")])
        return self


class Access(Part):
    """Who may connect, and who may send as whom."""

    networks: tuple[NetworkValue, ...] = Field(
        LOOPBACK, min_length=1, description="Who may connect. Default: loopback. A site file adds to it."
    )
    users: tuple[User, ...] = Field((), description="Users who log in, for listeners with `auth`.")
    local_users: dict[LocalUser, Patterns] = Field(
        {},
        description="Maps a local user (name or uid), the owner of the connecting socket, to the sender domains reserved for this "
        "user.",
    )


def alias_name(key: str) -> str:
    """Return the name that a key of `local.aliases` is about: quotes and case aside."""
    return unquoted(key).lower()


def _names(value: dict[str, str]) -> dict[str, str]:
    return {alias_name(key): target for key, target in value.items()}


class Local(Part):
    """Mail for this machine: root, postmaster, cron."""

    domain: Domain = Field("", description="Completes unqualified addresses. Default: `hostname`.")
    aliases: Annotated[dict[str, Address], AfterValidator(_names)] = Field(
        {},
        description="Maps local parts to addresses, as in `root: ops@example.com`. postmaster follows root. An alias may point to "
        "another alias.",
    )
    unaliased: Literal["hold", "reject"] = Field(
        "hold", description="`hold` or `reject` local mail without an alias. Mail for postmaster is never rejected."
    )


class Limits(Part):
    """Limits on incoming mail and connections."""

    message_size: Size = Field(25 * 2**20, gt=0, description="The largest message.")
    recipients: Whole = Field(1000, ge=1, description="Recipients of one message.")
    connections: Whole = Field(500, ge=1, description="Simultaneous connections.")
    connections_per_client: Whole = Field(200, ge=1, description="Simultaneous connections from one IP address.")
    memory: Size = Field(
        MEMORY,
        description="Memory for mail on its way in and out. A message that does not fit is deferred with 452. Content above 1 MiB "
        "stays on disk where possible (plain ASCII with a proper header). Must be at least five times `message_size`.",
    )
    min_free_disk: Size = Field(256 * 2**20, description="With less free space in `state_dir`, mail is deferred with 452.")
    command_timeout: Duration = Field(300.0, gt=0, description="The time a client has to send a command.")


def _sqlite(value: str) -> str:
    if value.startswith(("postgresql://", "postgres://")):
        raise NotSupported("not supported by this version (only sqlite is)")
    if value != "sqlite":
        raise ValueError("must be sqlite")
    return value


class Queue(Part):
    """How long mail is kept and how often it is retried."""

    url: Annotated[str, AfterValidator(_sqlite)] = Field(
        "sqlite", description="`sqlite`: a database in `state_dir`. PostgreSQL not yet."
    )
    retry: tuple[Annotated[Duration, Field(gt=0)], ...] = Field(
        (30.0, 120.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0),
        min_length=1,
        max_length=64,
        description="The backoff: times between attempts, each with random jitter. The last one repeats.",
    )
    max_age: Duration = Field(
        3 * 86400.0,
        gt=0,
        description="After this time mail fails if the last obstacle was the recipient, the message or the recipient's domain. "
        "Otherwise it is held.",
    )
    delay_warning: DelayWarning = Field(4 * 3600.0, description="After this time the sender gets a delay warning; or `off`.")
    keep_delivered: Duration = Field(7 * 86400.0, description="How long you can trace finished messages.")


class Http(Part):
    """The status page, metrics and JSON."""

    listen: ListenText = Field("127.0.0.1:9125", description="`HOST:PORT`. Beyond loopback you must set a token.")
    token: SecretStr | None = Field(
        None,
        description="The token that clients need beyond loopback, except for `/healthz` and `/readyz`. On loopback no token is "
        "needed.",
    )
    token_file: FilePath | None = Field(None, description="The file or systemd credential that contains `token`.")
    allowed_hosts: tuple[Domain, ...] = Field(
        (),
        description="Names besides `hostname` under which a page on loopback answers, for example behind a proxy that passes on "
        "`Host`.",
    )

    @property
    def address(self) -> HostPort:
        return host_port(self.listen)


class Log(Part):
    format: Literal["auto", "console", "json"] = Field(
        "auto", description="`console`, `json` or `auto`: console on a terminal, else JSON."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The lowest level that is logged: `debug`, `info`, `warning` or `error`."
    )


def _with_direct(value: dict[str, Any]) -> dict[str, Any]:
    return value if "direct" in value else {**value, "direct": DirectTransport(type="direct")}


class Config(Part):
    """The configuration of one relay."""

    hostname: Domain = Field(
        default_factory=machine_name, description="The name in EHLO and Received. Default: the machine's fully qualified name."
    )
    state_dir: FilePath = Field(STATE_DIR, description="The folder of the queue. Only one daemon can use it at a time.")
    control: FilePath = Field(
        RUN_DIR / "control.sock",
        description="The socket for operator commands. Default if /run/sesrelay does not exist: `control.sock` in `state_dir`.",
    )
    listeners: tuple[Listener, ...] = Field(
        default_factory=_default_listeners,
        min_length=1,
        description="The addresses on which sesrelay accepts mail. Default: port 25 on loopback.",
    )
    maildrop: FilePath = Field(
        MAILDROP,
        description="The folder in which `sesrelay-sendmail` leaves mail while the daemon is down, if it exists. Default if you "
        "change `state_dir`: `maildrop` in it.",
    )
    access: Access = Field(Access(), description="Who may send.")
    local: Local = Field(Local(), description="Mail for this machine: root, postmaster, cron.")
    limits: Limits = Field(Limits(), description="Limits on incoming mail and connections.")
    queue: Queue = Field(Queue(), description="How long mail is kept and how often it is retried.")
    transports: Annotated[dict[Name, Transport], AfterValidator(_with_direct)] = Field(
        default_factory=lambda: _with_direct({}), description="The transports, by name. One named `direct` is built in."
    )
    routes: tuple[Route, ...] = Field(
        (), description="Which senders use which transport. The most specific pattern wins: address, domain, `*.domain`, default."
    )
    default_route: Target = Field(Target(transport=("direct",)), description="The route for senders that match no other route.")
    null_sender_route: NullSenderRoute = Field(
        "auto", description="The route for `MAIL FROM:<>`. `auto`: by the header From. Or `{transport: NAME}`."
    )
    route_by: Literal["envelope", "header_from", "auto"] = Field(
        "auto",
        description="What the routes look at: `envelope`, `header_from` or `auto`. `auto`: the envelope sender, but the header "
        "From if the envelope's domain is local or null.",
    )
    expect: tuple[Expectation, ...] = Field(
        (), description="Results that the routes must have; tested by `check` and by each reload."
    )
    feedback: Annotated[tuple[Any, ...], unsupported(())] = Field((), description="Bounces and complaints from SES. Not yet.")
    http: Http = Field(Http(), description="The status page, metrics and JSON.")
    log: Log = Field(Log(), description="What is logged, and how.")

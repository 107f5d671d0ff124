"""A strict stand-in for Amazon SES: SendRawEmail of v1 and SendEmail of v2 with their limits, refusals and faults, and a
journal of what it took.

Use it within a loop (`async with SesStandIn() as ses`) or as a process (`python -m sesrelay.testing.ses --port 4579`). The
journal is at GET /journal, behaviour is changed by POST /control; neither wants a signature.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import json
import random
import ssl
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote_plus
from xml.sax.saxutils import escape

from aiohttp import web

from sesrelay.testing import ses_identities, ses_v1_identities, ses_v2, sigv4
from sesrelay.testing.ses_faults import Fault, after, before
from sesrelay.testing.ses_journal import Taken
from sesrelay.testing.ses_rules import Account, Refusal, envelope
from sesrelay.testing.ses_smtp import SmtpDoor
from sesrelay.testing.ses_suppression import handle as handle_suppression

NAMESPACE = "http://ses.amazonaws.com/doc/2010-12-01/"
BODY_MAX = 64 * 1024 * 1024  # octets of a request; the limit of a message is checked after


@dataclass
class SesStandIn:
    """Listens from `start` to `stop`. `keys` None: any key and signature will do; else access key ids and secrets.

    `look_up`: the DNS in which the records of pending domains are looked for.
    `script`: the faults of the next sends, in order; after them `chances` (name → probability) decide, by `seed`.
    `smtp_tls`: the certificate of its SMTP endpoint, which there is only with one; `smtp_implicit`: TLS from the start there.
    """

    host: str = "127.0.0.1"
    port: int = 0
    account: Account = field(default_factory=Account)
    keys: Mapping[str, str] | None = None
    script: deque[Fault] = field(default_factory=deque)
    chances: dict[str, float] = field(default_factory=dict)
    seed: int = 1
    v2: bool = True
    tls: ssl.SSLContext | None = None
    wall: Callable[[], float] = time.time
    look_up: ses_identities.LookUp | None = None
    smtp_tls: ssl.SSLContext | None = None
    smtp_port: int = 0
    smtp_implicit: bool = False

    def __post_init__(self) -> None:
        self.account.wall = self.wall
        self.journal: list[Taken] = []
        self.requests: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """What its rules refused, faults aside, by code."""
        self.smtp: SmtpDoor | None = None
        self.identities = ses_identities.Identities(self.account, self.look_up)
        self._random = random.Random(self.seed)
        self._runner: web.AppRunner | None = None
        self._stopping = asyncio.Event()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    async def __aenter__(self) -> SesStandIn:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application(client_max_size=BODY_MAX)
        app.router.add_post("/", self._query)
        app.router.add_route("*", ses_identities.PATHS, self._manage)
        app.router.add_post(ses_v2.PATH, self._send_email)
        app.router.add_route("*", "/v2/email/suppression/{path:.*}", self._suppression)
        app.router.add_get("/journal", self._show_journal)
        app.router.add_post("/control", self._control)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        if self.smtp_tls is not None:
            inside = (self.account, lambda: self.keys, self._next_fault, self._take, self._count_refusal)
            self.smtp = SmtpDoor(*inside, self.smtp_tls, self.host, self.smtp_port, self.smtp_implicit)
            await self.smtp.start()
            self.smtp_port = self.smtp.port

    async def stop(self) -> None:
        self._stopping.set()
        if self.smtp is not None:
            await self.smtp.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    def _count_refusal(self, code: str) -> None:
        self.refused[code] += 1

    def fail(self, *faults: str | Fault) -> None:
        """Add faults for the next sends."""
        self.script.extend(Fault(fault) if isinstance(fault, str) else fault for fault in faults)

    # --- the service ---

    async def _query(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        try:
            self._check_signature(request, body)
            form = _form(body)
            action = form.get("Action", "")
            self.requests[action] += 1
            if action == "SendRawEmail":
                return await self._send(request, form)
            if action == "GetSendQuota":
                a = self.account
                inner = f"<SentLast24Hours>{a.sent_last_24h}</SentLast24Hours><Max24HourSend>{a.quota}</Max24HourSend>"
                return _success(action, f"{inner}<MaxSendRate>{a.rate}</MaxSendRate>")
            if action == "GetSendStatistics":
                return _success(action, f"<SendDataPoints>{self._statistics()}</SendDataPoints>")
            inside = ses_v1_identities.answer(self.identities, action, form, tuple(_members(form, "Identities.member")))
            if inside is not None:
                return _success(action, inside)
            raise Refusal("InvalidAction", f"Could not find operation {action} for version 2010-12-01")
        except Refusal as refusal:
            self._count_refusal(refusal.code)
            return _refused(refusal.code, refusal.text, refusal.status)

    async def _send(self, request: web.Request, form: Mapping[str, str]) -> web.StreamResponse:
        fault = self._next_fault()
        answer = await before(fault, request, _refused, _refused, self._stopping)
        if answer is not None:
            return answer
        try:
            raw = base64.b64decode(form.get("RawMessage.Data", ""), validate=True)
        except binascii.Error:
            raise Refusal("SerializationException", "RawMessage.Data is not base64") from None
        names, values = _members(form, "Tags.member", ".Name"), _members(form, "Tags.member", ".Value")
        tags = dict(zip(names, values, strict=True))
        named = {name: form[name] for name in ("SourceArn", "FromArn", "ReturnPathArn") if name in form}
        source, destinations = envelope(form.get("Source", ""), tuple(_members(form, "Destinations.member")), raw)
        self.account.admit(source, destinations, raw, form.get("ConfigurationSetName"))
        taken = self._take(source, destinations, raw, tags, form.get("ConfigurationSetName"), fault, "v1", named)
        shown = "" if fault.name == "no_message_id" else f"<MessageId>{taken.message_id}</MessageId>"
        return after(fault, request, "v1") or _success("SendRawEmail", shown)

    async def _send_email(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests["SendEmail"] += 1
        try:
            if not self.v2:
                raise Refusal("NotFoundException", "Not found", 404)
            self._check_signature(request, body)
            fault = self._next_fault()
            answer = await before(fault, request, ses_v2.refused, partial(ses_v2.refused, names={}), self._stopping)
            if answer is not None:
                return answer
            source, destinations, raw, tags, named = ses_v2.read(body)
            source, destinations = envelope(source, destinations, raw)
            configuration_set = named.pop("ConfigurationSetName", None)
            self.account.admit(source, destinations, raw, configuration_set, ses_v2.SIZE_MAX)
            taken = self._take(source, destinations, raw, tags, configuration_set, fault, "v2", named)
            return after(fault, request, "v2") or ses_v2.accepted("" if fault.name == "no_message_id" else taken.message_id)
        except Refusal as refusal:
            self._count_refusal(refusal.code)
            return ses_v2.refused(refusal.code, refusal.text, refusal.status)

    def _take(
        self, source: str, destinations: tuple[str, ...], raw: bytes, tags: Mapping[str, str], configuration_set: str | None,
        fault: Fault, api: str, named: Mapping[str, Any],
    ) -> Taken:  # fmt: skip
        message_id = f"{len(self.journal) + 1:016x}-{uuid.uuid4()}-000000"
        lost, suppressed = fault.name if fault.takes else None, self.account.suppressed_of(destinations)
        taken = Taken(message_id, source, destinations, raw, tags, configuration_set, self.wall(), lost, api, named, suppressed)
        self.journal.append(taken)
        return taken

    def _statistics(self) -> str:
        given = self.account.statistics
        now = {"Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.wall()))}
        points = ([now | given] if given else []) if isinstance(given, dict) else given
        fields = ("".join(f"<{name}>{value}</{name}>" for name, value in point.items()) for point in points)
        return "".join(f"<member>{one}</member>" for one in fields)

    async def _manage(self, request: web.Request) -> web.Response:
        path, body = request.match_info["path"], await request.read()
        self.requests["GetAccount" if path == "account" else f"{request.method} {path}"] += 1
        try:
            if not self.v2:
                raise Refusal("NotFoundException", "Not found", 404)
            self._check_signature(request, body)
            return web.json_response(self.identities.handle(request.method, path, json.loads(body or b"{}")))
        except Refusal as refusal:
            return ses_v2.refused(refusal.code, refusal.text, refusal.status)

    async def _suppression(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests[f"{request.method} suppression"] += 1
        try:
            self._check_signature(request, body)
            path = request.match_info["path"]
            return web.json_response(handle_suppression(self.account, request.method, path, request.query, body))
        except Refusal as refusal:
            return ses_v2.refused(refusal.code, refusal.text, refusal.status)

    def _check_signature(self, request: web.Request, body: bytes) -> None:
        if self.keys is not None:
            path, _, query = request.raw_path.partition("?")
            sigv4.check(request.method, path, query, request.headers, body, self.keys, self.wall(), self.account.region)

    def _next_fault(self) -> Fault:
        if self.script:
            return self.script.popleft()
        drawn = self._random.random()
        for name, chance in self.chances.items():
            if drawn < chance:
                return Fault(name)
            drawn -= chance
        return Fault()

    # --- for whoever tests ---

    async def _show_journal(self, request: web.Request) -> web.Response:
        after = int(request.query.get("after", "0"))
        return web.json_response({"total": len(self.journal), "taken": [taken.document() for taken in self.journal[after:]]})

    async def _control(self, request: web.Request) -> web.Response:
        try:
            self.control(await request.json())
        except (ValueError, TypeError, AttributeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"requests": dict(self.requests), "refused": dict(self.refused), "taken": len(self.journal)})

    def control(self, wishes: Mapping[str, Any]) -> None:
        """Change behaviour: fields of the account, `script`, `chances`, `keys`, `v2`, `clear` (the journal), `identities`
        (name to status), `review` (of the request for production access).

        Raises: ValueError, TypeError
        """
        for name, value in wishes.items():
            if name == "script":
                self.script = deque(Fault(item) if isinstance(item, str) else Fault(**item) for item in value)
            elif name == "chances":
                self.chances = {Fault(fault).name: float(chance) for fault, chance in value.items()}
            elif name == "clear":
                self.journal.clear()
                self.requests.clear()
                self.refused.clear()
            elif name in ("keys", "v2"):
                setattr(self, name, value)
            elif name == "identities":
                for identity, status in value.items():
                    self.identities.order(identity, status)
            elif name == "review":
                self.identities.grant(value)
            elif name in ("rate", "quota"):
                setattr(self.account, name, float(value))
            elif name == "sent":
                self.account.tell_sent(float(value))
            elif name == "suppressed":
                self.account.suppressed = {address.lower(): (reason, self.wall()) for address, reason in dict(value).items()}
            elif name in ("sandbox", "suspended", "region", "statistics"):
                setattr(self.account, name, value)
            elif name in ("verified", "configuration_sets", "paused_sets"):
                setattr(self.account, name, None if value is None else frozenset(value))
            else:
                raise ValueError(f"{name!r} is nothing that can be controlled")


def _form(body: bytes) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in body.decode("ascii", "replace").split("&"))
    return {name: unquote_plus(value) for name, _, value in pairs}


def _members(form: Mapping[str, str], prefix: str, suffix: str = "") -> Iterable[str]:
    n = 1
    while (value := form.get(f"{prefix}.{n}{suffix}")) is not None:
        yield value
        n += 1


def _success(action: str, inner: str) -> web.Response:
    text = (
        f'<{action}Response xmlns="{NAMESPACE}">\n  <{action}Result>\n    {inner}\n  </{action}Result>\n'
        f"  <ResponseMetadata>\n    <RequestId>{uuid.uuid4()}</RequestId>\n  </ResponseMetadata>\n</{action}Response>\n"
    )
    return web.Response(text=text, content_type="text/xml")


def _refused(code: str, text: str, status: int) -> web.Response:
    kind = "Sender" if status < 500 else "Receiver"
    body = (
        f'<ErrorResponse xmlns="{NAMESPACE}">\n  <Error>\n    <Type>{kind}</Type>\n    <Code>{escape(code)}</Code>\n'
        f"    <Message>{escape(text)}</Message>\n  </Error>\n  <RequestId>{uuid.uuid4()}</RequestId>\n</ErrorResponse>\n"
    )
    return web.Response(status=status, text=body, content_type="text/xml")


async def _serve(ses: SesStandIn) -> None:
    await ses.start()
    print(f"ses {ses.url}", flush=True)  # noqa: T201 - the line that callers wait for
    if ses.smtp is not None:
        print(f"smtp {ses.host}:{ses.smtp_port}", flush=True)  # noqa: T201
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sesrelay.testing.ses", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port; the first line of output names it")
    parser.add_argument("--rate", type=float, default=1_000.0, help="recipients a second")
    parser.add_argument("--quota", type=float, default=1_000_000.0, help="recipients in 24 hours; -1: unlimited")
    parser.add_argument("--verified", action="append", help="an address or domain; may be repeated; none: all are")
    parser.add_argument("--configuration-set", action="append", default=[])
    parser.add_argument("--sandbox", action="store_true")
    parser.add_argument("--smtp-port", type=int, default=0, help="of the SMTP endpoint, which there is with a certificate")
    parser.add_argument("--smtp-certificate", metavar="FILE", help="PEM; with --smtp-key, if the key is in a file of its own")
    parser.add_argument("--smtp-key", metavar="FILE")
    parser.add_argument("--control", type=json.loads, default={}, help="a JSON object, as for POST /control")
    given = parser.parse_args()
    tls = None
    if given.smtp_certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(given.smtp_certificate, given.smtp_key)
    ses = SesStandIn(given.host, given.port, smtp_tls=tls, smtp_port=given.smtp_port)
    wishes = {name: getattr(given, name) for name in ("rate", "quota", "verified", "sandbox")}
    ses.control(wishes | {"configuration_sets": given.configuration_set} | given.control)
    try:
        asyncio.run(_serve(ses))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()

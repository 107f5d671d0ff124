"""The arguments of MAIL and RCPT: paths and parameters.

Invariant: what the quick expressions take, the general parser takes with the same result.

Source: RFC 5321 §4.1.1.2, §4.1.1.3, §4.1.2; RFC 1870; RFC 6152; RFC 6531 §3.4; RFC 3461 §4; RFC 4954 §5; RFC 4865 §4.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from sesrelay.mail import orcpt
from sesrelay.mail.envelope import Notify
from sesrelay.mail.reply import Reply

# The whole address is checked by the expression: RFC 5321 lengths, letters-digits-hyphen labels, no A-labels (which
# are decoded to be checked), no localhost. 254 octets: what fits a path of 256.
_PLAIN = (
    r"<(?=[^>]{3,254}>)([A-Z0-9!#$%&'*+/=?^_`{|}~.\-]{1,64}"
    r"@((?:(?!xn--)[A-Z0-9](?:[A-Z0-9\-]{0,61}[A-Z0-9])?\.)+(?!localhost>)[A-Z]{2,63}))>"
)
_ASCII_I = re.ASCII | re.IGNORECASE  # without ASCII, the long s and the Kelvin sign would be letters
_QUICK_MAIL = re.compile(r"FROM:" + _PLAIN + r"(?: SIZE=([0-9]{1,15}))?(?: BODY=(7BIT|8BITMIME))?\Z", _ASCII_I)
_QUICK_RCPT = re.compile(r"TO:" + _PLAIN + r"\Z", _ASCII_I)

C = TypeVar("C")

_ROUTE = r"(?:@[^<>\s:]*:)?"
_MAILBOX = r'(?:"(?:[^"\\]|\\.)*"|[^"<>\s])'
_BRACKETED = re.compile(rf"< *+{_ROUTE}({_MAILBOX}*) *>(?: +|\Z)")
_NAMED = re.compile(rf"<(?:\"[^\"]*\"|[^\"<>])*< *+{_ROUTE}({_MAILBOX}+) *>>(?: +|\Z)")  # one as in a header, put into brackets
_BARE = re.compile(rf"({_MAILBOX}+)(?: +|\Z)")
_KEYWORD = re.compile(r"[A-Z0-9][A-Z0-9\-]*\Z")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)\Z", _ASCII_I)  # RFC 3339 §5.6
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+\Z")
_UTF8_XTEXT = re.compile(r"(?:[!-*,-<>-~\u0080-\U0010ffff]|\+[0-9A-F]{2}|\\x\{[0-9A-F]+\})+\Z")

LONGEST = 500  # octets of ORCPT (RFC 3461 §4); some say their whole Message-ID as ENVID, which may have 100

MAIL_SYNTAX = Reply(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]")
NO_BINARY = Reply(555, "5.6.1", "BODY=BINARYMIME is not offered: next hops might not accept it")
HELD_TWICE = Reply(501, "5.5.4", "HOLDFOR and HOLDUNTIL cannot be used together")
RCPT_SYNTAX = Reply(501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]")


@dataclass(slots=True)
class MailCommand:
    """`plain` tells that the address needs no further check. Units: `hold_for` seconds, `hold_until` Unix seconds."""

    address: str
    size: int = 0
    body: Literal["7BIT", "8BITMIME"] = "7BIT"
    smtputf8: bool = False
    ret: Literal["FULL", "HDRS"] | None = None
    envid: str | None = None
    plain: bool = False
    binary: bool = False
    hold_for: int | None = None
    hold_until: float | None = None


@dataclass(slots=True)
class RcptCommand:
    """`domain` is set, in lower case, where the address is plain and needs no further check."""

    address: str
    notify: Notify | None = None
    orcpt: str | None = None
    domain: str = ""


def parse_mail(argument: str) -> MailCommand | Reply:
    """Return what stands behind `MAIL `, or the refusal of its form."""
    quick = _QUICK_MAIL.match(argument)
    if quick:
        address, _, size, body = quick.groups()
        eight = body is not None and body[0] == "8"
        return MailCommand(address, int(size) if size else 0, "8BITMIME" if eight else "7BIT", plain=True)
    return general_mail(argument)


def parse_rcpt(argument: str) -> RcptCommand | Reply:
    """Return what stands behind `RCPT `, or the refusal of its form."""
    quick = _QUICK_RCPT.match(argument)
    if quick:
        return RcptCommand(quick[1], domain=quick[2].lower())
    return general_rcpt(argument)


def general_mail(argument: str) -> MailCommand | Reply:
    """Parse any MAIL argument."""
    found = _path("FROM:", argument)
    if found is None:
        return MAIL_SYNTAX
    command = MailCommand(found[0])
    refusal = _apply(command, found[1], _MAIL_PARAMETERS)
    if refusal is None and command.hold_for is not None and command.hold_until is not None:
        return HELD_TWICE
    return refusal or (NO_BINARY if command.binary else command)


def general_rcpt(argument: str) -> RcptCommand | Reply:
    """Parse any RCPT argument."""
    found = _path("TO:", argument)
    if found is None:
        return RCPT_SYNTAX
    command = RcptCommand(found[0])
    return _apply(command, found[1], _RCPT_PARAMETERS) or command


def _path(keyword: str, argument: str) -> tuple[str, str] | None:
    """Return address and parameters; a source route is dropped (RFC 5321 §4.1.1.3).

    Missing brackets are forgiven, and blanks or a name within them, as by Postfix: `explode(',', $to)` leaves such.
    """
    if argument[: len(keyword)].upper() != keyword:
        return None
    rest = argument[len(keyword) :].lstrip(" ")
    found = (_BRACKETED.match(rest) or _NAMED.match(rest)) if rest.startswith("<") else _BARE.match(rest)
    return (found[1], rest[found.end() :]) if found else None


def _apply(command: C, text: str, known: dict[str, Callable[[C, str | None], bool]]) -> Reply | None:
    seen: set[str] = set()
    for parameter in filter(None, text.split(" ")):  # other blanks than SP may stand in a value, as in ORCPT=utf-8;…
        name, equals, value = parameter.partition("=")
        name = name.upper()
        if not _KEYWORD.match(name) or (equals and not value) or name in seen:
            return Reply(501, "5.5.4", f"Malformed parameter: {parameter[:80]}")
        seen.add(name)
        take = known.get(name)
        if take is None:
            return Reply(555, "5.5.4", f"Unknown parameter: {name[:80]}")
        if not take(command, value if equals else None):
            return Reply(501, "5.5.4", f"Malformed value of {name}")
    return None


def _size(command: MailCommand, value: str | None) -> bool:
    if value is None or len(value) > 20 or not (value.isascii() and value.isdigit()):
        return False
    command.size = int(value)
    return True


def _body(command: MailCommand, value: str | None) -> bool:
    match (value or "").upper():
        case "7BIT":
            command.body = "7BIT"
        case "8BITMIME":
            command.body = "8BITMIME"
        case "BINARYMIME":
            command.binary = True
        case _:
            return False
    return True


def _smtputf8(command: MailCommand, value: str | None) -> bool:
    command.smtputf8 = True
    return value is None


def _ret(command: MailCommand, value: str | None) -> bool:
    match (value or "").upper():
        case "FULL":
            command.ret = "FULL"
        case "HDRS":
            command.ret = "HDRS"
        case _:
            return False
    return True


def _envid(command: MailCommand, value: str | None) -> bool:
    command.envid = orcpt.mended(value or "")
    return len(command.envid) <= LONGEST and _is_printable(command.envid)


def _auth(command: MailCommand, value: str | None) -> bool:
    # Who wrote a message on another's behalf is of no use here, but clients that say so are not to be refused.
    return value is not None


def _hold_for(command: MailCommand, value: str | None) -> bool:
    if value is None or len(value) > 9 or not (value.isascii() and value.isdigit()):
        return False
    command.hold_for = int(value)
    return True


def _hold_until(command: MailCommand, value: str | None) -> bool:
    if value is None or not _DATE_TIME.match(value):
        return False
    try:
        command.hold_until = datetime.fromisoformat(value.upper()).timestamp()
    except (ValueError, OverflowError):
        return False
    return True


def _notify(command: RcptCommand, value: str | None) -> bool:
    words = list(filter(None, (value or "").upper().split(",")))
    if words == ["NEVER"]:
        command.notify = frozenset({"NEVER"})
        return True
    wanted: set[Literal["NEVER", "SUCCESS", "FAILURE", "DELAY"]] = set()
    for word in words:
        match word:
            case "SUCCESS" | "FAILURE" | "DELAY":
                wanted.add(word)
            case _:
                return False
    command.notify = frozenset(wanted)
    return bool(wanted)


def _orcpt(command: RcptCommand, value: str | None) -> bool:
    kind, semicolon, address = (value or "").partition(";")
    if kind.lower() != orcpt.UTF8:
        address = orcpt.mended(address)
    command.orcpt = f"{kind};{address}"
    if not (semicolon and _KEYWORD.match(kind.upper()) and len(address) <= LONGEST):
        return False
    if kind.lower() != orcpt.UTF8:
        return _is_printable(address)
    read = orcpt.unescaped(orcpt.decoded(address))
    return bool(_UTF8_XTEXT.match(address)) and orcpt.printable_utf8(read)


def _is_printable(xtext: str) -> bool:
    """Tell whether it is xtext that hides nothing but printable ASCII (RFC 3461 §4.2, §4.4)."""
    return bool(_XTEXT.match(xtext)) and orcpt.printable(orcpt.decoded(xtext))


_MAIL_PARAMETERS: dict[str, Callable[[MailCommand, str | None], bool]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _smtputf8,
    "RET": _ret,
    "ENVID": _envid,
    "AUTH": _auth,
    "HOLDFOR": _hold_for,
    "HOLDUNTIL": _hold_until,
}
_RCPT_PARAMETERS: dict[str, Callable[[RcptCommand, str | None], bool]] = {"NOTIFY": _notify, "ORCPT": _orcpt}

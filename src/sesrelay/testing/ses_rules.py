"""What SES refuses of a call, in the order and the words in which it does.

Source: Amazon SES developer guide, "Quotas", "Header fields", "Error messages"; the wordings are those seen in issue threads.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sesrelay.mail.mailboxes import mailboxes

SIZE_MAX, RECIPIENTS_MAX, LINE_MAX = 10_485_760, 50, 1_000
DAY = 24 * 3600.0  # seconds
_ONCE = """
accept-language acceptlanguage archived-at auto-submitted bounces-to comments content-alternative content-base content-class
content-description content-disposition content-duration content-id content-language content-length content-location
content-md5 content-transfer-encoding content-type date delivered-to disposition-notification-options
disposition-notification-to dkim-signature domainkey-signature errors-to from importance in-reply-to keywords list-archive
list-help list-id list-owner list-post list-subscribe list-unsubscribe list-unsubscribe-post message-context message-id
mime-version organization original-from original-message-id original-recipient original-subject precedence priority
references reply-to return-path return-receipt-to sender solicitation sensitivity subject thread-index thread-topic
user-agent vbr-info
"""
ONCE = frozenset(_ONCE.split())
_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:((?:[^\n]*\n)(?:[ \t][^\n]*\n)*)", re.M)
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+\Z|\"[\x20-\x7e]+\"\Z")
_DOMAIN = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\Z")
_NAMED = re.compile(r".*<([^<>]*)>\s*\Z", re.S)
_SIMULATOR = "simulator.amazonses.com"


class Refusal(Exception):
    """An answer that is no acceptance: `code` and `text` as the service words them, and the `status` of v1's HTTP answer."""

    def __init__(self, code: str, text: str, status: int = 400) -> None:
        super().__init__(code, text)
        self.code, self.text, self.status = code, text, status


@dataclass
class Bucket:
    """Recipients a second, with debt: one token lets a whole message through, and then the seconds are paid off."""

    rate: float
    now: Callable[[], float] = time.monotonic
    tokens: float = 0.0
    at: float | None = None

    def take(self, recipients: int) -> bool:
        now = self.now()
        full = max(self.rate, 1.0)
        self.tokens = full if self.at is None else min(self.tokens + (now - self.at) * self.rate, full)
        self.at = now
        if self.tokens < 1.0 - 1e-6:
            return False
        self.tokens -= recipients
        return True


@dataclass
class Account:
    """How the account stands. `verified` None: every identity is; else addresses, with any label (`post+label@`), and
    domains, which cover sub-domains.

    `sent` is what was sent in the 24 hours before the start; what is sent from then on leaves that window as its time comes.
    `pending` tells which identities nobody may send from yet, even where every other one is verified.
    `suppressed`: addresses in lower case, each with its reason (BOUNCE, COMPLAINT) and when it was put there: Unix seconds.
    `statistics`: of GetSendStatistics, as in `{"DeliveryAttempts": 100, "Bounces": 3, "Complaints": 0, "Rejects": 0}`; or a list
    of such points, each with its `Timestamp`.
    """

    region: str = "us-east-1"
    rate: float = 1_000.0
    quota: float = 1_000_000.0
    sent: float = 0.0
    sandbox: bool = False
    suspended: bool = False
    verified: frozenset[str] | None = None
    configuration_sets: frozenset[str] = frozenset()
    paused_sets: frozenset[str] = frozenset()
    suppressed: dict[str, tuple[str, float]] = field(default_factory=dict)
    bucket: Bucket = field(default_factory=lambda: Bucket(1_000.0))
    wall: Callable[[], float] = time.time
    pending: Callable[[], frozenset[str]] = frozenset
    statistics: dict[str, int] | Sequence[Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sent: deque[tuple[float, float]] = deque()
        self.tell_sent(self.sent)

    def tell_sent(self, recipients: float) -> None:
        """Let so many have been sent just now, and none before."""
        self.sent = recipients
        self._sent = deque([(self.wall(), recipients)] if recipients else [])

    @property
    def sent_last_24h(self) -> float:
        while self._sent and self._sent[0][0] <= self.wall() - DAY:
            self.sent -= self._sent.popleft()[1]
        return self.sent

    def suppressed_of(self, destinations: Iterable[str]) -> tuple[str, ...]:
        """Return those whom SES takes mail for, counts it, and sends nothing."""
        return tuple(address for address in destinations if bare(address).lower() in self.suppressed)

    def admit(
        self, source: str, destinations: Sequence[str], raw: bytes, configuration_set: str | None, size_max: int = SIZE_MAX
    ) -> None:
        """Raises: Refusal"""
        if self.suspended:
            raise Refusal(
                "MessageRejected",
                "Sending suspended for this account. For more information, please check the inbox of the email address "
                "associated with your AWS account.",
            )
        head = _head(raw)
        self._check_set(configuration_set or value(head, b"x-ses-configuration-set"))
        check_form(source, destinations, raw, head, size_max)
        self._check_identities(source, destinations, head)
        if self.quota >= 0 and self.sent_last_24h + len(destinations) > self.quota:
            raise Refusal("Throttling", "Daily message quota exceeded.")
        self.bucket.rate = self.rate
        if not self.bucket.take(len(destinations)):
            raise Refusal("Throttling", "Maximum sending rate exceeded.")
        self.sent += len(destinations)
        self._sent.append((self.wall(), len(destinations)))

    def _check_set(self, name: str | None) -> None:
        if name and name not in self.configuration_sets:
            raise Refusal("ConfigurationSetDoesNotExist", f"Configuration set <{name}> does not exist.")
        if name and name in self.paused_sets:
            raise Refusal("ConfigurationSetSendingPausedException", f"Email sending is paused for configuration set <{name}>.")

    def _check_identities(self, source: str, destinations: Sequence[str], head: bytes) -> None:
        senders = [source, *_addresses(head, b"from"), *_addresses(head, b"sender"), *_addresses(head, b"return-path")]
        failed = [address for address in senders if not self._is_verified(address)]
        if self.sandbox:
            failed += [bare(a) for a in destinations if not self._is_verified(a) and not a.lower().endswith("@" + _SIMULATOR)]
        if failed:
            named = ", ".join(dict.fromkeys(failed))
            raise Refusal(
                "MessageRejected",
                "Email address is not verified. "
                f"The following identities failed the check in region {self.region.upper()}: {named}",
            )

    def _is_verified(self, address: str) -> bool:
        lowered = bare(address).lower()
        local, _, domain = lowered.rpartition("@")
        labels = domain.split(".")
        names = {lowered, f"{local.partition('+')[0]}@{domain}"} | {".".join(labels[n:]) for n in range(len(labels))}
        pending = self.pending()  # asked first: what the DNS has by now is verified with it
        if self.verified is None:
            return not self.sandbox and names.isdisjoint(pending)
        return not names.isdisjoint(self.verified)


def envelope(source: str, destinations: tuple[str, ...], raw: bytes) -> tuple[str, tuple[str, ...]]:
    """Return both as SES has them: what a call leaves out it takes from the header."""
    head = _head(raw)
    named = dict.fromkeys([*_addresses(head, b"to"), *_addresses(head, b"cc")])
    return source or next(iter(_addresses(head, b"from")), ""), destinations or tuple(named)


def check_form(source: str, destinations: Sequence[str], raw: bytes, head: bytes, size_max: int = SIZE_MAX) -> None:
    """Check size, count, addresses, header and lines. Raises: Refusal"""
    if len(raw) > size_max:
        raise _invalid(f"Message length is more than {size_max} bytes long: '{len(raw)}'.")
    if len(destinations) > RECIPIENTS_MAX:
        raise _invalid(f"Recipient count exceeds {RECIPIENTS_MAX}.")
    if not destinations:
        raise _invalid("Missing required parameter 'Destinations'.")
    for address in (source, *destinations):
        check_address(address)
    seen: set[str] = set()
    for name in (found[1].decode("ascii") for found in _FIELD.finditer(head)):
        if name.lower() in ONCE and name.lower() in seen:
            raise _invalid(f"Duplicate header '{name}'.")
        seen.add(name.lower())
    if "from" not in seen:
        raise _invalid("Missing required header 'From'.")
    for name in (b"from", b"sender", b"reply-to", b"to", b"cc"):
        for address in _addresses(head, name):
            _check_within(address)
    if "bcc" in seen:
        raise _invalid("A Bcc header reached SES, and would have reached the recipients.")
    if max(map(len, raw.split(b"\n")), default=0) + 1 > LINE_MAX:
        raise _invalid(f"Transaction failed: a line is longer than {LINE_MAX} octets.")


def check_address(address: str) -> None:
    """Raises: Refusal, in the words of the mail library that SES uses"""
    local, at, domain = bare(address).rpartition("@")
    if not at or not domain:
        raise _invalid("Missing final '@domain'")
    if not local:
        raise _invalid(f"User name is missing: '{bare(address)}'.")
    if not domain.isascii():
        raise _invalid(f"Invalid domain name: '{domain}'.")
    if ".." in domain:
        raise _invalid("Domain contains dot-dot")
    if not _DOMAIN.match(domain):
        raise _invalid("Domain contains illegal character")
    if not local.startswith('"') and (local.startswith(".") or local.endswith(".") or ".." in local):
        raise _invalid("Local address contains dot-dot")
    if not _LOCAL.match(local):
        raise _invalid("Local address contains control or whitespace")


def _check_within(address: str) -> None:
    """Check an address in the header, of which SES wants less. Raises: Refusal"""
    local, at, domain = address.rpartition("@")
    if not at:
        raise _invalid("Missing final '@domain'")
    if not local.isascii():
        raise _invalid("Local address contains control or whitespace")
    if not domain.isascii():
        raise _invalid(f"Invalid domain name: '{domain}'.")


def bare(address: str) -> str:
    """Return the address of `Name <address>`."""
    found = _NAMED.match(address)
    return found[1] if found else address.strip()


def _invalid(text: str) -> Refusal:
    return Refusal("InvalidParameterValue", text)


def _head(raw: bytes) -> bytes:
    return raw[: raw.find(b"\r\n\r\n") + 2] if b"\r\n\r\n" in raw else raw


def _values(head: bytes, name: bytes) -> Iterable[str]:
    for found in _FIELD.finditer(head):
        if found[1].lower() == name:
            yield " ".join(found[2].decode("utf-8", "replace").split())


def value(head: bytes, name: bytes) -> str | None:
    """Return the first field of that name, in lower case, of a header."""
    return next(iter(_values(head, name)), None)


def _addresses(head: bytes, name: bytes) -> list[str]:
    return [address for _, address in mailboxes(_values(head, name)) if address]

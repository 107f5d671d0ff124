"""Mail addresses as SMTP carries them: recognising, checking and normalising.

An address is a plain string, `local@domain`; the null sender is the empty string.

Invariant: an address that `check` has passed holds no control character, no space outside a quoted
local part, and a domain that `domain_key` can normalise.

Source: RFC 5321 §4.1.2, §4.5.3.1; RFC 6531 §3.3; RFC 5890 (A-labels).
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

LOCAL_PART_MAX = 64  # octets, RFC 5321 §4.5.3.1.1
DOMAIN_MAX = 255  # octets, RFC 5321 §4.5.3.1.2
LABEL_MAX = 63  # octets, RFC 1035 §2.3.4

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
# Applications do send `a..b@` and `.a@`; remote hosts take them, so they are not ours to refuse.
_UNQUOTED = re.compile(rf"[{_ATEXT}.\u0080-\U0010ffff]+\Z")
_QUOTED = re.compile(r'"(?:[\x20-\x21\x23-\x5b\x5d-\x7e\u0080-\U0010ffff]|\\[\x20-\x7e])*"\Z')
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\Z")
_IN_CONTEXT = frozenset("\u00b7\u0375\u05f3\u05f4\u200c\u200d\u30fb")
"""What stands in domains beside letters, marks and digits, where its neighbours allow it (RFC 5892 appendix A)."""
_IGNORED = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Letters and marks that are not to be seen, and that many programs leave out (UTS 46): a domain with one would be another's."""
_VIRAMA = 9
"""Its combining class: behind one, ZWNJ and ZWJ have a meaning; ZWNJ has it between Arabic letters too (RFC 5892 A.1, A.2)."""
_NEVER = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"))
"""Controls, spaces and the like. Cn is not among them: a newer Unicode than Python's may have assigned it."""


class AddressError(ValueError):
    """An address that cannot be one; the text says why, for a person."""


def split(address: str) -> tuple[str, str]:
    """Return local part and domain of `address`; the domain is empty where there is none."""
    local, at, domain = address.rpartition("@")
    return (local, domain) if at else (address, "")


def unquoted(local: str) -> str:
    """Return a local part with quotes only where it needs them, and then in one form: `"a\\b"` is `ab` (RFC 5321 §4.1.2)."""
    if not _QUOTED.match(local):
        return local
    text = re.sub(r"\\(.)", r"\1", local[1:-1])
    return text if _UNQUOTED.match(text) else '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


@lru_cache(maxsize=4096)  # a message asks five times for the same few domains
def domain_key(domain: str) -> str:
    """Return `domain` in the one form that comparisons use: lower case, A-labels, no final dot.

    Raises: AddressError for what is no domain name, and for address literals.
    Source: RFC 5891 §4.4 (lower case and NFC first, then Punycode, label by label; ß stays ß).
    """
    text = domain.removesuffix(".")
    if text.isascii():
        key = text.lower()
    else:
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", text).lower())
        key = ".".join(_a_label(label) for label in re.split("[.\u3002\uff0e\uff61]", folded))
    if not key:
        raise AddressError("the domain is empty")
    if key.startswith("["):
        raise AddressError("address literals are not accepted")
    if len(key) > DOMAIN_MAX:
        raise AddressError(f"the domain is longer than {DOMAIN_MAX} octets")
    for label in key.split("."):
        _check_label(label)
    return key


@lru_cache(maxsize=4096)
def domain_of(address: str) -> str:
    """Return the normalised domain of `address`, or an empty string where it has none that is valid."""
    domain = split(address)[1]
    if not domain:
        return ""
    try:
        return domain_key(domain)
    except AddressError:
        return ""


def parents(domain: str) -> list[str]:
    """Return the domains above, the nearest first, but for the top one, which is nobody's."""
    labels = domain.split(".")
    return [".".join(labels[n:]) for n in range(1, len(labels) - 1)]


@lru_cache(maxsize=4096)
def normalise(address: str) -> str:
    """Return `address` as comparisons want it: the local part in lower case, the domain by `domain_key`; a bare name in lower case.

    Raises: AddressError
    """
    local, at, domain = address.rpartition("@")
    if not at:
        return address.lower()
    check_local_part(local)
    return f"{local.lower()}@{domain_key(domain)}"


def comparable(address: str) -> str:
    """Return `address` by `normalise`, or in lower case where it is not well-formed: for what is not ours to refuse."""
    try:
        return normalise(address)
    except AddressError:
        return address.lower()


def check(address: str, *, smtputf8: bool = True) -> str:
    """Return `address` unchanged if it is a well-formed mailbox with a domain.

    Raises: AddressError
    """
    local, at, domain = address.rpartition("@")
    if not at:
        raise AddressError("the address has no domain")
    check_local_part(local)
    if not smtputf8 and not address.isascii():
        raise AddressError("a non-ASCII address requires the SMTPUTF8 parameter of MAIL")
    key = domain_key(domain)
    if key == "localhost" or key.endswith(".localhost"):
        raise AddressError("localhost is not a mail domain")
    return address


def check_local_part(local: str) -> None:
    """Check what stands before the @.

    Raises: AddressError
    """
    if not local:
        raise AddressError("the local part is empty")
    if len(local.encode("utf-8", "surrogatepass")) > LOCAL_PART_MAX:
        raise AddressError(f"the local part is longer than {LOCAL_PART_MAX} octets")
    if not (_UNQUOTED.match(local) or _QUOTED.match(local)):
        raise AddressError("the local part has characters that must be quoted")
    if not local.isascii() and any(0xD800 <= ord(c) <= 0xDFFF or 0x80 <= ord(c) <= 0x9F for c in local):
        raise AddressError("the local part has control characters or is not UTF-8")


def _a_label(label: str) -> str:
    if label.isascii():
        return label
    if label.startswith("xn--"):
        raise AddressError(f"the domain label {label!r} is not valid IDNA")
    for char in label:
        # RFC 5892: letters, marks, digits and a few more; symbols, spaces and controls never.
        if ord(char) >= 0x80 and unicodedata.category(char)[0] not in "LMN" and char not in _IN_CONTEXT:
            raise AddressError(f"the domain has the character U+{ord(char):04X}, which is not allowed in a domain")
    unseen = _unseen(label)
    if unseen:
        raise AddressError(f"the domain has the character U+{ord(unseen):04X}, which is invisible there")
    return "xn--" + label.encode("punycode").decode("ascii")


def _unseen(label: str) -> str:
    """Return the first character of a label that nobody sees, and that makes no difference to a script where it stands."""
    found = _IGNORED.search(label)
    if found:
        return found[0]
    for before, char, after in zip(f" {label}", label, f"{label[1:]} ", strict=False):
        joins = char == "\u200c" and all(unicodedata.bidirectional(one) in ("AL", "R") for one in (before, after))
        if char in "\u200c\u200d" and not joins and unicodedata.combining(before) != _VIRAMA:
            return char
    return ""


def _check_label(label: str) -> None:
    if not label:
        raise AddressError("the domain has an empty label")
    if len(label) > LABEL_MAX:
        raise AddressError(f"a label of the domain is longer than {LABEL_MAX} octets")
    if not _LABEL.match(label):
        raise AddressError(f"the domain label {label!r} has characters that are not allowed in a host name")
    if label.startswith("xn--"):
        try:
            meant = label[4:].encode("ascii").decode("punycode")
        except UnicodeError:
            meant = ""
        # Symbols are not of IDNA 2008 either, but such domains (xn--i-7iq.ws) are there and have mail.
        if meant.isascii() or any(unicodedata.category(char) in _NEVER and char not in _IN_CONTEXT for char in meant):
            raise AddressError(f"the domain label {label!r} is not valid IDNA")

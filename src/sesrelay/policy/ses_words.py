"""What a refusal says in SES's own words, and what it only repeats: addresses, domains, ARNs, values of the header.

Invariant: keywords are looked for in SES's own words alone; else an address or a header could choose what its refusal is taken
for, and stop the mail of others.
Invariant: what is long costs no more than its length: an address is looked for in so many characters, a quote without its end
goes to the end.

Source: Amazon SES developer guide, "Error messages" and "SMTP response codes"; the wordings are those seen in issue threads.
"""

from __future__ import annotations

import re
from collections import Counter

from sesrelay.mail import headers
from sesrelay.mail.address import comparable

_FAILED_CHECK = re.compile(r"failed the check in region (?P<region>[A-Za-z0-9-]+):\s*(?P<named>.*)\Z", re.I | re.S)
# Lists and values that stand last and without quotes: nothing of SES's own follows.
_LAST = re.compile(r"((?:failed the check in region [a-z0-9-]+:|, got) ).*", re.I | re.S)
# An opening quote at the very beginning would take the whole refusal with it, and one within a word is an apostrophe.
_QUOTED = re.compile(
    r"(?<=\bat )'(?P<member>[A-Za-z]+)[\w.]*'(?= failed to satisfy)"  # a name of the API's, not a value
    r"|(?<=[\s:(=])(?:`[^'’`]*`(?!\w)|['`‘].*?(?:['’](?!\w)|\Z)|[\"“].*?(?:[\"”](?!\w)|\Z)|<[^<>]*)",
    re.S,
)
_REPEATED = re.compile(
    r"(?:\"(?:[^\"\\]|\\.){0,320}\"|[^\s<>,;\"'()`][^\s<>,;\"()`]{0,320})@[^\s<>,;\"'()`]*"  # 320: SES takes no longer address
    r"|\barn:[^\s<>,\"'`]*"
)
_KIND = re.compile(r"\A(?:transaction failed|message rejected): *", re.I)
# A label that begins with a capital may be a sentence that begins without a blank.
_DOMAIN = re.compile(r"(?<![\w.-])[\w-]+(?:\.+(?![A-Z])[\w-]+)+")

TWICE = re.compile(
    r"\bduplicat\w*\b.{0,200}\bheaders?\b"
    r"|\bheaders?\b.{0,200}\b(?:duplicat\w*|repeated|twice|more than once|(?:multiple|several) times)\b"
    r"|\b(?:twice|more than once|multiple times)\b.{0,200}\bheaders?\b"
    r"|\b(?:more than one|multiple|only one)\s+\S{1,80}\s+(?:header|field)s?\b",
    re.I | re.S,
)
"""That a field of the header stands more than once, in SES's own words."""
HEADER_TEXT = re.compile(
    r"header|\bmime\b|\blines?\b|boundary|\bcontent\b|encoding|charset|start of message|malformed message|\bsubject\b(?! to\b)"
    r"|\b(?:build|parse) (?:the |this )?(?:message|e-?mail)|\bexpected\b.{1,200}\bgot\b",
    re.I | re.S,
)
"""That the header is meant, or what is within the message, in SES's own words; looked for before ADDRESS_TEXT."""
ADDRESS_TEXT = re.compile(
    r"address|domain|local (?:name|part)|user name|recipient|destination|mailbox|missing (?:final )?'|route-addr|nested group"
    r"|semicolon|quote",
    re.I,
)
"""That an address is meant: a recipient's or one in the header."""
UNWANTED_TEXT = re.compile(r"\baddress\b.{0,40}\b(?:blacklisted|blocklisted|suppress\w+)", re.I | re.S)
"""That a recipient is on a list of SES's, in SES's own words."""
_LONE = re.compile(r"(?<=['\"`‘“<])[!-9;-~]{1,200}?(?=['\"’”>](?!\w))")
LEAVE_SANDBOX = "`sesrelay account request-production` (or SES console, Account dashboard)"
"""What an operator does about the sandbox."""
SANDBOX_LIMITS = f"200 recipients in 24 hours, one per second, and only verified addresses: {LEAVE_SANDBOX}"
"""What an account in the sandbox may do, and the remedy."""
_MANY = re.compile(r"received\Z|x-received\Z|arc-|authentication-results\Z|received-spf\Z|resent-")
"""Fields that stand several times in good mail (RFC 5321 §4.4, RFC 5322 §3.6.6, RFC 8601, RFC 8617)."""


def own_words(text: str) -> str:
    """Return what is left of a refusal without all that SES repeats of the call; an ellipsis stands for each.

    The kind of refusal, which SMTP puts in front, is left out too: it says nothing that its code does not say.
    """
    text = _LAST.sub(r"\1…", _KIND.sub("", text, count=1))
    # Addresses first: their quoted local parts may hold the quotes that SES puts around them.
    text = _REPEATED.sub(lambda found: "arn:…" if found[0].startswith("arn:") else "…", text)
    text = _QUOTED.sub(lambda found: f"{found[0][0]}{found['member'] or '…'}", text)
    return _DOMAIN.sub("…", text)


def addresses_named(text: str) -> frozenset[str]:
    """Return the addresses, by `comparable`, that a refusal repeats; one that is within another is not among them."""
    return frozenset(comparable(_bare(found[0])) for found in _REPEATED.finditer(text) if "@" in found[0])


def _bare(address: str) -> str:
    local, _, domain = address.rpartition("@")
    if not local.startswith('"'):
        local = local.rpartition(":")[2].lstrip("[")  # "address:a@x", "[a@x]"
    return f"{local}@{domain.rstrip('.]')}"


def repeated_fields(text: str, head: bytes) -> frozenset[str]:
    """Return which fields of the header `head`, in lower case, a refusal finds more than once; none where it says no such thing.

    They are those that it names among what `head` has more than once, or all of these where it names none.
    """
    words = own_words(text)
    if not TWICE.search(words):
        return frozenset()
    standing = Counter(field.key for field in headers.fields(head))
    repeated = {key for key, times in standing.items() if times > 1}
    said = (*_LONE.findall(text), *re.split(r"[\s:,]+", words))
    named = repeated & {word.strip(".;()").lower() for word in said}
    return frozenset(named or (key for key in repeated if not _MANY.match(key)))


def not_verified(text: str) -> frozenset[str]:
    """Return the addresses, by `comparable`, that a refusal calls not verified."""
    found = _FAILED_CHECK.search(text)
    named = found["named"] if found else text.partition(": ")[2] or text
    return frozenset(map(comparable, headers.addresses([named.rstrip(". ")])))


def region_named(text: str) -> str | None:
    """Return the region, in lower case, in which senders or recipients are not verified."""
    found = _FAILED_CHECK.search(text)
    return found["region"].lower() if found else None


def denies_an_identity(text: str) -> bool:
    """Tell whether a refusal for want of permission names the identity that it is about."""
    return ":identity/" in text

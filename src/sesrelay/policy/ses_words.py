"""What a refusal says in SES's own words, and what it only repeats: addresses, domains, ARNs, values of the header.

Invariant: keywords are looked for in SES's own words alone; else an address or a header could choose what its refusal is taken
for, and stop the mail of others.
Invariant: what is long costs no more than its length: an address is looked for in so many characters, a quote without its end
goes to the end.

Source: Amazon SES developer guide, "Error messages" and "SMTP response codes"; the wordings are those seen in issue threads.
"""

from __future__ import annotations

import re

from sesrelay.mail import headers

_FAILED_CHECK = re.compile(r"failed the check in region (?P<region>[A-Za-z0-9-]+):\s*(?P<named>.*)\Z", re.I | re.S)
# Lists and values that stand last and without quotes: nothing of SES's own follows.
_LAST = re.compile(r"((?:failed the check in region [a-z0-9-]+:|, got) ).*", re.I | re.S)
# An opening quote at the very beginning would take the whole refusal with it, and one within a word is an apostrophe.
_QUOTED = re.compile(
    r"(?<=\bat )'(?P<member>[A-Za-z]+)[\w.]*'(?= failed to satisfy)"  # a name of the API's, not a value
    r"|(?<=[\s:(=])(?:['`‘].*?(?:['’](?!\w)|\Z)|[\"“].*?(?:[\"”](?!\w)|\Z)|<[^<>]*)",
    re.S,
)
_REPEATED = re.compile(
    r"(?:\"(?:[^\"\\]|\\.){0,320}\"|[^\s<>,;\"'()`][^\s<>,;\"()`]{0,320})@[^\s<>,;\"'()`]*"  # 320: SES takes no longer address
    r"|\barn:[^\s<>,\"'`]*"
)
# A label that begins with a capital may be a sentence that begins without a blank.
_DOMAIN = re.compile(r"(?<![\w.-])[\w-]+(?:\.+(?![A-Z])[\w-]+)+")


def own_words(text: str) -> str:
    """Return what is left of a refusal without all that SES repeats of the call; an ellipsis stands for each."""
    text = _LAST.sub(r"\1…", text)
    # Addresses first: their quoted local parts may hold the quotes that SES puts around them.
    text = _REPEATED.sub(lambda found: "arn:…" if found[0].startswith("arn:") else "…", text)
    text = _QUOTED.sub(lambda found: f"{found[0][0]}{found['member'] or '…'}", text)
    return _DOMAIN.sub("…", text)


def not_verified(text: str) -> tuple[str, ...]:
    """Return the addresses that a refusal calls not verified, as it writes them."""
    found = _FAILED_CHECK.search(text)
    named = found["named"] if found else text.partition(": ")[2] or text
    return headers.addresses([named.rstrip(". ")])


def region_named(text: str) -> str | None:
    """Return the region, in lower case, in which senders or recipients are not verified."""
    found = _FAILED_CHECK.search(text)
    return found["region"].lower() if found else None


def denies_an_identity(text: str) -> bool:
    """Tell whether a refusal for want of permission names the identity that it is about."""
    return ":identity/" in text

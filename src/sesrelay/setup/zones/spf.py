"""SPF records as values: what one covers, and two made into one.

Source: RFC 7208 §3.2 (one record a name), §4.6 (terms), §5.1 (all), §6.1 (redirect).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile

VERSION = "v=spf1"
LOOKUPS_MAX = 10  # RFC 7208 §4.6.4
_LOOKS_UP = re.compile(r"[+?~-]?(?:include:|exists:|redirect=|(?:a|mx|ptr)(?:[:/]|\Z))", re.I)


def is_spf(text: str) -> bool:
    """Tell whether a TXT value is an SPF record."""
    return text.lower() == VERSION or text.lower().startswith(f"{VERSION} ")


def covers(text: str, terms: Iterable[str]) -> bool:
    """Tell whether the record has all these mechanisms as passing ones, ahead of its `all`."""
    there = {_bare(term) for term in takewhile(lambda term: not _is_all(term), text.split()[1:])}
    return all(_bare(term) in there for term in terms)


def merge(existing: Sequence[str], terms: Sequence[str], ending: str = "~all") -> str:
    """Return one record with what the existing ones say and these mechanisms; `ending` where none says how it ends.

    What decides for everybody else (`all`, `redirect=`) stays as it was, the strictest one where several records disagree.
    The first mechanism that matches decides: what is new comes ahead of those that do not pass, and what says the contrary of
    it goes.
    """
    passing = {_bare(term) for term in terms}
    mechanisms: list[str] = []
    endings: list[str] = []
    redirects: list[str] = []
    for term in (term for text in existing for term in text.split()[1:]):
        lowered = term.lower()
        if _is_all(term):
            endings.append(lowered)
        elif lowered.startswith("redirect="):
            redirects.append(term)
        elif _bare(term) not in {_bare(other) for other in mechanisms}:
            mechanisms.append(term)
    ahead = list(takewhile(lambda term: term[0] not in "-~?", mechanisms))
    new = [term for term in dict.fromkeys(terms) if _bare(term) not in {_bare(other) for other in ahead}]
    behind = [term for term in mechanisms[len(ahead) :] if term.lower().lstrip("+-~?") not in passing]
    mechanisms = [*ahead, *new, *behind]
    # A redirect is followed only where nothing matched, and not at all beside `all`.
    last = redirects[:1] if redirects and not endings else [min(endings or [ending], key=_leniency)]
    return " ".join([VERSION, *mechanisms, *last])


def lookups(text: str) -> int:
    """Count the terms that make the receiver ask the DNS again; those of included records are not seen."""
    return sum(_LOOKS_UP.match(term) is not None for term in text.split()[1:])


def _leniency(ending: str) -> int:
    return "-~?+".find(ending[0]) if ending[0] in "-~?+" else 3


def _is_all(term: str) -> bool:
    return term.lower().lstrip("+-~?") == "all"


def _bare(term: str) -> str:
    return term.lower().removeprefix("+")

"""The stand-in's identities by the v1 API: what programs older than v2, and policies that lack it, ask for.

Source: Amazon SES API reference 2010-12-01, ListIdentities, GetIdentityVerificationAttributes, VerifyDomainIdentity,
VerifyDomainDkim, VerifyEmailIdentity, DeleteIdentity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from xml.sax.saxutils import escape

from sesrelay.testing.ses_identities import Identities
from sesrelay.testing.ses_rules import Refusal

_STATUS = {"SUCCESS": "Success", "FAILED": "Failed", "TEMPORARY_FAILURE": "TemporaryFailure", "NOT_STARTED": "NotStarted"}


def answer(identities: Identities, action: str, form: Mapping[str, str], names: Sequence[str]) -> str | None:
    """Return the inside of the answer's result, None where `action` is another one. `names`: the members of Identities.

    Raises: Refusal
    """
    match action:
        case "ListIdentities":
            identities.refuse_endless_list()
            kind = form.get("IdentityType")
            wanted = [name for name in identities.statuses() if kind is None or (kind == "EmailAddress") == ("@" in name)]
            start, size = int(form.get("NextToken") or 0), int(form.get("MaxItems") or 1000)
            more = f"<NextToken>{start + size}</NextToken>" if start + size < len(wanted) else ""
            return f"<Identities>{_members(wanted[start : start + size])}</Identities>{more}"
        case "GetIdentityVerificationAttributes":
            statuses = identities.statuses()
            entries = "".join(
                f"<entry><key>{escape(name)}</key><value><VerificationStatus>{_STATUS.get(statuses[name.lower()], 'Pending')}"
                f"</VerificationStatus><VerificationToken>{_token(name)}</VerificationToken></value></entry>"
                for name in names
                if name.lower() in statuses
            )
            return f"<VerificationAttributes>{entries}</VerificationAttributes>"
        case "VerifyDomainIdentity":
            _make(identities, form.get("Domain", ""))
            return f"<VerificationToken>{_token(form['Domain'])}</VerificationToken>"
        case "VerifyDomainDkim":
            return f"<DkimTokens>{_members(_make(identities, form.get('Domain', '')))}</DkimTokens>"
        case "VerifyEmailIdentity" | "VerifyEmailAddress":
            _make(identities, form.get("EmailAddress", ""))
            return ""
        case "DeleteIdentity":
            identities.forget(form.get("Identity", ""))
            return ""
    return None


def _make(identities: Identities, name: str) -> list[str]:
    """Return the DKIM tokens of the identity, which is made where there is none. Raises: Refusal"""
    if name.lower() not in identities.known:
        try:
            identities.handle("POST", "identities", {"EmailIdentity": name})
        except Refusal as refusal:
            raise Refusal("InvalidParameterValue", refusal.text) from None
    return identities.known[name.lower()].tokens


def _members(values: Sequence[str]) -> str:
    return "".join(f"<member>{escape(value)}</member>" for value in values)


def _token(name: str) -> str:
    return sha256(name.lower().encode()).hexdigest()[:44]

"""The stand-in's identities and account details: SES v2 as REST, with domains that stay pending until the DNS has their records.

Source: Amazon SES API v2 reference, CreateEmailIdentity and its kin, PutAccountDetails.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from sesrelay.testing.ses_rules import Account, Refusal

PATHS = "/v2/email/{path:(?:account|identities|list-identities).*}"
LookUp = Callable[[str, str], Iterable[str]]
"""(name, type) → values, as the DNS has them: TXT without quotes, names without their final dot."""
STATUSES = ("PENDING", "SUCCESS", "FAILED", "TEMPORARY_FAILURE", "NOT_STARTED")
_DOMAIN = re.compile(r"(?:[a-z0-9_](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z0-9-]+\Z")
_SELECTOR = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\Z")


@dataclass
class Identity:
    """One domain or address. `status` None: as the DNS says; else as somebody ordered."""

    name: str
    zone: str
    selector: str | None = None
    configuration_set: str | None = None
    mail_from: str | None = None
    on_mx_failure: str = "USE_DEFAULT_VALUE"
    signing: bool = True
    status: str | None = None
    mail_from_status: str | None = None

    @property
    def tokens(self) -> list[str]:
        if self.selector:
            return [self.selector]
        return [sha256(f"{self.name} {n}".encode()).hexdigest()[:32] for n in range(3)]


@dataclass
class Identities:
    """The identities of one account and region. `look_up` None: what is pending stays so until it is ordered otherwise."""

    account: Account
    look_up: LookUp | None = None
    review: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    known: dict[str, Identity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.account.pending = self.pending

    def pending(self) -> frozenset[str]:
        """Return the identities that are known and may not send; those that may by now are verified with it."""
        return frozenset(one.name for one in self.known.values() if not self._verified(one))

    def statuses(self) -> dict[str, str]:
        """Return every identity with its status, in order."""
        found = {one.name: self._status(one) for one in self.known.values()}
        return dict(sorted((found | dict.fromkeys(self.account.verified or (), "SUCCESS")).items()))

    def refuse_endless_list(self) -> None:
        """Raises: Refusal where every identity is verified"""
        if self.account.verified is None and not self.known:
            raise Refusal("UnknownOperationException", "An account that sends for everybody has no list of whom it sends for", 404)

    def forget(self, name: str) -> None:
        """Remove an identity, if there is one."""
        self.known.pop(name.lower(), None)
        if self.account.verified is not None:
            self.account.verified -= {name.lower()}

    def handle(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a call below /v2/email. Raises: Refusal"""
        match method, path.strip("/").split("/"):
            case "GET", ["account"]:
                return self._account()
            case "POST", ["identities"]:
                return self._create(body)
            case "GET", ["identities", name]:
                return self._show(self._find(name))
            case "DELETE", ["identities", name]:
                self.forget(self._find(name).name)
                return {}
            case "PUT", ["identities", name, "mail-from"]:
                return self._put_mail_from(self._find(name), body)
            case "PUT", ["identities", name, "configuration-set"]:
                self._find(name).configuration_set = self._set(body.get("ConfigurationSetName"))
                return {}
            case "PUT", ["identities", name, "dkim"]:
                self._find(name).signing = bool(body.get("SigningEnabled"))
                return {}
            case "PUT", ["identities", name, "dkim", "signing"]:
                return self._put_signing(self._find(name), body)
            case ("GET", ["identities"]) | ("POST", ["list-identities"]):
                return self._list()
            case "POST", ["account", "details"]:
                return self._put_details(body)
        raise Refusal("UnknownOperationException", f"{method} {path}", 404)

    def order(self, name: str, status: str) -> None:
        """Let an identity and its MAIL FROM domain stand so from now on, made where there is none. Raises: ValueError"""
        if status not in STATUSES:
            raise ValueError(f"{status!r} is none of {', '.join(STATUSES)}")
        one = self.known.setdefault(name.lower(), Identity(name.lower(), self._zone()))
        one.status = one.mail_from_status = status
        self._verified(one)

    def grant(self, answer: str) -> None:
        """Answer the request for production access: GRANTED, DENIED, FAILED or PENDING."""
        self.review = answer
        if answer == "GRANTED":
            self.account.sandbox = False

    def _account(self) -> dict[str, Any]:
        a = self.account
        told: dict[str, Any] = {
            "SendQuota": {"Max24HourSend": a.quota, "MaxSendRate": a.rate, "SentLast24Hours": a.sent_last_24h},
            "SendingEnabled": not a.suspended, "ProductionAccessEnabled": not a.sandbox,
            "EnforcementStatus": "SHUTDOWN" if a.suspended else "HEALTHY", "DedicatedIpAutoWarmupEnabled": False,
            "SuppressionAttributes": {"SuppressedReasons": ["BOUNCE", "COMPLAINT"]},
        }  # fmt: skip
        if self.details:
            told["Details"] = {**self.details, "ReviewDetails": {"Status": self.review or "PENDING", "CaseId": "1"}}
        return told

    def _list(self) -> dict[str, Any]:
        self.refuse_endless_list()
        return {"EmailIdentities": [_listed(name, status) for name, status in self.statuses().items()]}

    def _create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        name = str(body.get("EmailIdentity", "")).lower()
        if "@" not in name and not _DOMAIN.match(name):
            raise _bad(f"Invalid email address or domain: {name}.")
        if name in self.known:
            raise Refusal("AlreadyExistsException", f"Email identity {name} already exist.")
        one = Identity(name, self._zone(), configuration_set=self._set(body.get("ConfigurationSetName")))
        one.selector = _selector(body.get("DkimSigningAttributes") or {})
        self.known[name] = one
        told = self._show(one)
        return {key: told[key] for key in ("IdentityType", "VerifiedForSendingStatus", "DkimAttributes")}

    def _show(self, one: Identity) -> dict[str, Any]:
        status = self._status(one)
        own = one.selector is not None
        dkim = {
            "SigningEnabled": one.signing, "Status": status, "Tokens": one.tokens,
            "SigningAttributesOrigin": "EXTERNAL" if own else "AWS_SES", "NextSigningKeyLength": "RSA_2048_BIT",
            **({} if own else {"SigningHostedZone": one.zone}),
        }  # fmt: skip
        told: dict[str, Any] = {
            "IdentityType": "EMAIL_ADDRESS" if "@" in one.name else "DOMAIN",
            "FeedbackForwardingStatus": True,
            "VerifiedForSendingStatus": self._verified(one),
            "DkimAttributes": dkim,
            "Policies": {},
            "Tags": [],
            "VerificationStatus": status,
            "VerificationInfo": {} if status == "SUCCESS" else {"ErrorType": "HOST_NOT_FOUND"},
        }
        if one.configuration_set:
            told["ConfigurationSetName"] = one.configuration_set
        if one.mail_from:
            told["MailFromAttributes"] = {
                "MailFromDomain": one.mail_from, "MailFromDomainStatus": self._mail_from_status(one),
                "BehaviorOnMxFailure": one.on_mx_failure,
            }  # fmt: skip
        return told

    def _status(self, one: Identity) -> str:
        if one.status is None and self.look_up is not None and "@" not in one.name:
            names = [f"{token}._domainkey.{one.name}" for token in one.tokens]
            if one.selector:
                there = all(any("p=" in text for text in self.look_up(name, "TXT")) for name in names)
            else:
                targets = [f"{token}.{one.zone}" for token in one.tokens]
                there = all(target in self.look_up(name, "CNAME") for name, target in zip(names, targets, strict=True))
            return "SUCCESS" if there else "PENDING"
        return one.status or "PENDING"

    def _mail_from_status(self, one: Identity) -> str:
        if one.mail_from_status is None and self.look_up is not None and one.mail_from:
            wanted = f"10 feedback-smtp.{self.account.region}.amazonses.com"
            return "SUCCESS" if list(self.look_up(one.mail_from, "MX")) == [wanted] else "PENDING"
        return one.mail_from_status or "PENDING"

    def _verified(self, one: Identity) -> bool:
        """A domain that is verified may be sent for."""
        verified = self._status(one) == "SUCCESS"
        if verified and self.account.verified is not None:
            self.account.verified |= {one.name}
        return verified

    def _put_mail_from(self, one: Identity, body: Mapping[str, Any]) -> dict[str, Any]:
        name = str(body.get("MailFromDomain") or "").lower()
        if name and not name.endswith(f".{one.name}"):
            raise _bad(f"Provided MAIL-FROM domain <{name}> is not subdomain of the domain of the identity <{one.name}>.")
        one.mail_from, one.mail_from_status = name or None, None
        one.on_mx_failure = str(body.get("BehaviorOnMxFailure") or "USE_DEFAULT_VALUE")
        return {}

    def _put_signing(self, one: Identity, body: Mapping[str, Any]) -> dict[str, Any]:
        one.selector = _selector(body.get("SigningAttributes") or {}) if body.get("SigningAttributesOrigin") == "EXTERNAL" else None
        one.status = None
        return {"DkimStatus": self._status(one), "DkimTokens": one.tokens, "SigningHostedZone": one.zone}

    def _put_details(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if body.get("MailType") not in ("MARKETING", "TRANSACTIONAL"):
            raise _bad("1 validation error detected: Value at 'mailType' failed to satisfy constraint")
        if not body.get("WebsiteURL"):
            raise _bad("1 validation error detected: Value at 'websiteURL' failed to satisfy constraint")
        if self.details and (self.review or "PENDING") in ("PENDING", "GRANTED"):
            raise Refusal("ConflictException", "There is already a request, or the account has production access.", 409)
        self.details = {key: value for key, value in body.items() if key != "ProductionAccessEnabled"}
        self.review = "PENDING"
        return {}

    def _set(self, name: Any) -> str | None:
        if name and name not in self.account.configuration_sets:
            raise Refusal("NotFoundException", f"Configuration set <{name}> does not exist.", 404)
        return str(name) if name else None

    def _find(self, name: str) -> Identity:
        one = self.known.get(name.lower())
        if one is None:
            raise Refusal("NotFoundException", f"Email identity {name} does not exist.", 404)
        return one

    def _zone(self) -> str:
        # Newer regions have zones of their own; the older ones share the first.
        return f"dkim.{self.account.region}.amazonses.com" if self.account.region.startswith("eu-") else "dkim.amazonses.com"


def _selector(signing: Mapping[str, Any]) -> str | None:
    """Return the selector of a key of one's own, or None for SES's keys. Raises: Refusal"""
    selector, key = signing.get("DomainSigningSelector"), signing.get("DomainSigningPrivateKey")
    if selector is None and key is None:
        return None
    if not selector or not _SELECTOR.match(str(selector)):
        raise _bad("Invalid domain signing selector.")
    try:
        der = base64.b64decode(str(key), validate=True)
    except binascii.Error:
        raise _bad("Invalid domain signing private key.") from None
    if not 500 < len(der) < 1300:  # PKCS#1 or PKCS#8 of RSA keys of 1024 to 2048 bits
        raise _bad("Invalid domain signing private key.")
    return str(selector)


def _listed(name: str, status: str) -> dict[str, Any]:
    kind = "EMAIL_ADDRESS" if "@" in name else "DOMAIN"
    return {"IdentityType": kind, "IdentityName": name, "SendingEnabled": status == "SUCCESS", "VerificationStatus": status}


def _bad(text: str) -> Refusal:
    return Refusal("BadRequestException", text)

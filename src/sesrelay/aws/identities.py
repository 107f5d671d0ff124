"""The domains that an SES account sends for: making, reading and removing them.

Source: Amazon SES API v2, CreateEmailIdentity and its kin; developer guide, "Easy DKIM", "BYODKIM", "Custom MAIL FROM".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sesrelay.aws.clients import AwsError, Clients, told

DEFAULT_ZONE = "dkim.amazonses.com"
"""Where the keys are if SES names no zone, as it did before zones had regions."""
MxFailure = Literal["USE_DEFAULT_VALUE", "REJECT_MESSAGE"]


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A DKIM key of one's own (BYODKIM): the private key as SES takes it, base64 of PKCS#1 or PKCS#8 without a frame."""

    selector: str
    private_key: str

    def __repr__(self) -> str:
        return f"OwnKey({self.selector})"


@dataclass(frozen=True, slots=True)
class Identity:
    """A domain as SES knows it. Status words are SES's own, in lower case; `tokens` are selectors where `own_key`."""

    domain: str
    region: str
    verified: bool
    dkim_status: str
    dkim_enabled: bool
    own_key: bool
    tokens: tuple[str, ...]
    zone: str
    mail_from: str | None
    mail_from_status: str | None
    mx_failure: str | None
    configuration_set: str | None
    error: str | None = None

    @property
    def ready(self) -> bool:
        """Whether SES sends for it, and by its own MAIL FROM domain if it has one."""
        return self.verified and self.mail_from_status in (None, "success")

    def document(self) -> dict[str, Any]:
        return {
            "domain": self.domain,
            "region": self.region,
            "verified": self.verified,
            "ready": self.ready,
            "error": self.error,
            "dkim": {
                "status": self.dkim_status,
                "signing": self.dkim_enabled,
                "origin": "own" if self.own_key else "ses",
                "tokens": list(self.tokens),
                "zone": None if self.own_key else self.zone,
            },
            "mail_from": {"domain": self.mail_from, "status": self.mail_from_status, "on_mx_failure": self.mx_failure},
            "configuration_set": self.configuration_set,
        }


def read(clients: Clients, domain: str) -> Identity | None:
    """Return the identity, or None where the account has none of this name. Raises: AwsError"""
    try:
        with told(f"read the identity {domain}"):
            answer = clients["sesv2"].get_email_identity(EmailIdentity=domain)
    except AwsError as error:
        if error.code == "NotFoundException":
            return None
        raise
    dkim, sender = answer.get("DkimAttributes", {}), answer.get("MailFromAttributes", {})
    return Identity(
        domain=domain,
        region=clients.region,
        verified=bool(answer.get("VerifiedForSendingStatus")),
        dkim_status=str(dkim.get("Status", "NOT_STARTED")).lower(),
        dkim_enabled=bool(dkim.get("SigningEnabled")),
        own_key=dkim.get("SigningAttributesOrigin") == "EXTERNAL",
        tokens=tuple(dkim.get("Tokens") or ()),
        zone=(dkim.get("SigningHostedZone") or DEFAULT_ZONE).rstrip("."),
        mail_from=sender.get("MailFromDomain") or None,
        mail_from_status=str(sender["MailFromDomainStatus"]).lower() if sender.get("MailFromDomain") else None,
        mx_failure=str(sender["BehaviorOnMxFailure"]).lower() if sender.get("MailFromDomain") else None,
        configuration_set=answer.get("ConfigurationSetName") or None,
        error=(answer.get("VerificationInfo") or {}).get("ErrorType"),
    )


def create(clients: Clients, domain: str, key: OwnKey | None, configuration_set: str | None) -> bool:
    """Make the identity; where it is there already, bring its key and set into line. Tells whether it is new. Raises: AwsError"""
    wanted: dict[str, Any] = {"EmailIdentity": domain}
    if key is not None:
        wanted["DkimSigningAttributes"] = _signing(key)
    if configuration_set:
        wanted["ConfigurationSetName"] = configuration_set
    try:
        with told(f"create the identity {domain}"):
            clients["sesv2"].create_email_identity(**wanted)
            return True
    except AwsError as error:
        if error.code != "AlreadyExistsException":
            raise
    if key is not None:
        with told(f"set the DKIM key {key.selector} of {domain}"):
            clients["sesv2"].put_email_identity_dkim_signing_attributes(
                EmailIdentity=domain, SigningAttributesOrigin="EXTERNAL", SigningAttributes=_signing(key)
            )
    if configuration_set:
        with told(f"set the configuration set {configuration_set} of {domain}"):
            clients["sesv2"].put_email_identity_configuration_set_attributes(
                EmailIdentity=domain, ConfigurationSetName=configuration_set
            )
    return False


def set_mail_from(clients: Clients, domain: str, mail_from: str, on_mx_failure: MxFailure = "USE_DEFAULT_VALUE") -> None:
    """Let SES write `mail_from` into the envelope; `on_mx_failure`: what SES does until it sees its MX. Raises: AwsError"""
    with told(f"set the MAIL FROM domain {mail_from}"):
        clients["sesv2"].put_email_identity_mail_from_attributes(
            EmailIdentity=domain, MailFromDomain=mail_from, BehaviorOnMxFailure=on_mx_failure
        )


def remove(clients: Clients, domain: str) -> None:
    """Remove the identity. Raises: AwsError, also where there is none"""
    with told(f"remove the identity {domain}"):
        clients["sesv2"].delete_email_identity(EmailIdentity=domain)


def _signing(key: OwnKey) -> dict[str, str]:
    return {"DomainSigningSelector": key.selector, "DomainSigningPrivateKey": key.private_key}

"""The ways out as the file names them: one class for each `type`. Every key is documented on its field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints, model_validator

from sesrelay.config.dkim import Dkim
from sesrelay.config.part import Part
from sesrelay.config.values import (
    Address,
    Crossed,
    Duration,
    FilePath,
    Fingerprint,
    Host,
    Ip,
    Nameserver,
    Percent,
    Port,
    Price,
    Rate,
    Region,
    SesHeader,
    Tag,
    Url,
    as_list,
    parse_domain,
)
from sesrelay.policy.ses_addressing import QUEUE_ID_TAG
from sesrelay.policy.ses_hosts import is_ses

_FAILOVER = "How long the transport is paused before the route's next transport is tried."
_DKIM = "DKIM keys by sender domain: `{selector, key_file}`, or a list for several signatures."


def _something(part: float) -> float:
    if part <= 0:
        raise ValueError("must be more than 0%")
    return part


def _not_all(part: float) -> float:
    if part >= 1:
        raise ValueError("must be less than 100%")
    return part


def _not_the_relays(tag: str) -> str:
    if tag == QUEUE_ID_TAG:
        raise ValueError("reserved: sesrelay uses this tag for the queue id (use another name)")
    return tag


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


KeyId = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""As of an environment variable, which may have a line end behind it."""
TagName = Annotated[Tag, AfterValidator(_not_the_relays)]
Share = Annotated[Percent, AfterValidator(_something)]
Reserve = Annotated[Percent, AfterValidator(_not_all)]
_SHARE = "The part of the account's rate to use, if other hosts use the account too."
_RESERVE = "The part of the 24 h quota that is reserved for priority high."
_BY_SMTP = "For SES's SMTP endpoint. "
_TARIFF = "What SES costs, in any one currency, for the metric of the estimated price."
_PREFLIGHT = "Reject unverified sender domains at MAIL. Has no effect with `rewrite_from`."
_REWRITE = "An address that replaces a From that is not verified. Reply-To keeps the old one."
TlsLevel = Literal["none", "opportunistic", "required", "dane", "mta-sts"]


def _recipient_domain(value: str) -> str:
    return ("*." if value.startswith("*.") else "") + parse_domain(value.removeprefix("*."))


class ListManagement(Part):
    """An SES contact list. SES does not send to recipients who have unsubscribed from it."""

    contact_list: str = Field(min_length=1, description="The name of the list.")
    topic: str | None = Field(None, min_length=1, description="The topic within the list.")


class Tariff(Part):
    """What SES costs, in any one currency."""

    per_1000: Price = Field(0.0, description="The price of a thousand recipients.")
    per_gb: Price = Field(
        0.0, description="The price of a gigabyte (1,000,000,000 octets) of messages, where each message counts once per recipient."
    )


class SesTransport(Part):
    """Amazon SES by its API."""

    type: Literal["ses"] = Field(description="Amazon SES by its API.")
    region: Region | None = Field(None, description="The AWS region, as in `us-east-1`. Default: from boto3's own chain.")
    api: Literal["auto", "v1", "v2"] = Field(
        "auto",
        description="`v1` (SendRawEmail, up to 10 MB), `v2` (SendEmail, Raw, up to 40 MB) or `auto`: v1, but v2 for larger "
        "messages and for features that v1 lacks.",
    )
    endpoint_url: Url | None = Field(
        None, description="An endpoint instead of the region's: a VPC endpoint, or a stand-in in tests."
    )
    fips: bool | None = Field(
        None,
        description="Use FIPS endpoints. Default: from AWS_USE_FIPS_ENDPOINT or the AWS configuration.",
        json_schema_extra=_without_default,
    )
    dual_stack: bool | None = Field(
        None,
        description="Use endpoints that also have IPv6. Default: from AWS_USE_DUALSTACK_ENDPOINT or the AWS configuration.",
        json_schema_extra=_without_default,
    )
    access_key_id: KeyId | None = Field(
        None, description="The access key; needs `secret_access_key`. Without it, `profile` and `role_arn`: boto3's own chain."
    )
    secret_access_key: SecretStr | None = Field(None, description="The secret of `access_key_id`.")
    secret_access_key_file: FilePath | None = Field(
        None, description="The file or systemd credential that contains `secret_access_key`."
    )
    profile: str | None = Field(None, min_length=1, description="A profile of the AWS configuration files.")
    role_arn: str | None = Field(None, pattern="^arn:", description="A role to assume with the credentials found.")
    external_id: str | None = Field(None, min_length=1, description="The external ID that the role requires.")
    configuration_set: Tag | None = Field(None, description="The SES configuration set for every message.")
    tags: dict[TagName, Tag] = Field({}, description="SES message tags, name to value. `sesrelay-id` is reserved for the relay.")
    source_arn: str | None = Field(None, pattern="^arn:", description="Sending authorization: the identity's ARN.")
    from_arn: str | None = Field(None, pattern="^arn:", description="Sending authorization: the ARN for the header From.")
    return_path_arn: str | None = Field(None, pattern="^arn:", description="Sending authorization: the ARN for the return path.")
    tenant: str | None = Field(None, min_length=1, max_length=64, description="The SES tenant that sends (API v2).")
    endpoint_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$", description="The ID of an SES multi-region endpoint (API v2)."
    )
    list_management: ListManagement | None = Field(None, description="The SES contact list for every message (API v2).")
    feedback_forwarding: Address | None = Field(
        None, description="The address to which SES forwards bounces and complaints by mail, instead of the sender (API v2)."
    )
    rate: Rate = Field(None, description="Recipients per second. `auto`: the account's rate, following its changes.")
    share: Share = Field(1.0, description=_SHARE)
    daily_reserve: Reserve = Field(0.1, description=_RESERVE)
    tariff: Tariff | None = Field(None, description=_TARIFF)
    preflight: bool = Field(False, description=_PREFLIGHT)
    rewrite_from: Address | None = Field(None, description=_REWRITE)
    trusted_headers: tuple[SesHeader, ...] = Field((), description="`X-SES-*` headers that applications may set.")
    thread_ids: bool = Field(True, description="Add the application's Message-ID, which SES overwrites, to References too.")
    failover_after: Duration = Field(600.0, description=_FAILOVER)

    @model_validator(mode="after")
    def _go_together(self) -> SesTransport:
        problems: list[tuple[str, str]] = []
        secret = self.secret_access_key or self.secret_access_key_file
        if self.secret_access_key and self.secret_access_key_file:
            problems.append(("secret_access_key_file", "secret_access_key is set too (use only one of the two)"))
        if self.access_key_id and not secret:
            problems.append(("access_key_id", "has no secret (add secret_access_key or secret_access_key_file)"))
        if secret and not self.access_key_id:
            problems.append(
                ("secret_access_key" if self.secret_access_key else "secret_access_key_file", "has no effect without access_key_id")
            )
        if self.profile and self.access_key_id:
            problems.append(("profile", "access_key_id is set too (use only one source of credentials)"))
        if self.external_id and not self.role_arn:
            problems.append(("external_id", "has no effect without role_arn"))
        problems += self._endpoint_problems()
        if problems:
            raise Crossed(problems)
        return self

    def _endpoint_problems(self) -> list[tuple[str, str]]:
        problems: list[tuple[str, str]] = []
        if self.api == "v1":
            wants_v2 = ("tenant", "endpoint_id", "list_management", "feedback_forwarding")
            problems += [(key, "supported by the v2 API only (set api: auto or v2)") for key in wants_v2 if getattr(self, key)]
        if self.endpoint_url:
            problems += [(key, "has no effect together with endpoint_url") for key in ("fips", "dual_stack") if getattr(self, key)]
        if self.endpoint_id and self.fips:
            problems.append(("fips", "SES has no FIPS endpoint that spans regions (leave out fips or endpoint_id)"))
        return problems


class SmtpTransport(Part):
    """Any relay by SMTP, including SES's SMTP endpoint."""

    type: Literal["smtp"] = Field(description="Any relay by SMTP, including SES's SMTP endpoint.")
    host: Host | None = Field(None, description="The name or IP address of the relay; or use `hosts`.")
    hosts: tuple[Host, ...] = Field((), description="Several relays, tried in this order. Not for an SES endpoint.")
    # The defaults of port and tls follow from other keys: _defaults_that_follow.
    port: Port = Field(
        25,
        description="Default: 587 with a password or a token, 465 with `tls: implicit`, else 25.",
        json_schema_extra=_without_default,
    )
    tls: Literal["none", "opportunistic", "required", "implicit"] = Field(
        "opportunistic",
        description="`none`, `opportunistic` (STARTTLS if offered), `required` (always STARTTLS) or `implicit` (TLS from the "
        "start). Default: `required` with a password, a token, `tls_name` or `tls_fingerprints`, else `opportunistic`.",
        json_schema_extra=_without_default,
    )
    ca_file: FilePath | None = Field(None, description="CA certificates (PEM) to trust instead of the system's.")
    tls_name: Host | None = Field(None, description="The name that the certificate must have. Default: the relay's name.")
    tls_fingerprints: Annotated[tuple[Fingerprint, ...], BeforeValidator(as_list)] = Field(
        (), description="SHA-256 fingerprints of the certificates to accept, whatever their issuer and name."
    )
    username: str | None = Field(None, min_length=1, description="The user name for AUTH.")
    password: SecretStr | None = Field(None, description="The password for AUTH (PLAIN, LOGIN, CRAM-MD5).")
    password_file: FilePath | None = Field(None, description="The file or systemd credential that contains `password`.")
    token: SecretStr | None = Field(None, description="An OAuth 2 access token for AUTH XOAUTH2, instead of a password.")
    token_file: FilePath | None = Field(
        None, description="The file or systemd credential that contains `token`. It is read again for each login."
    )
    rewrite_sender: Address | None = Field(
        None,
        description="The envelope sender for every message, for a relay that accepts no other. Bounces go there. Default: "
        "unchanged.",
    )
    nameservers: tuple[Nameserver, ...] = Field(
        (),
        description="IP or IP:PORT of resolvers that know the relay's name. Default: the system's name lookup, including "
        "/etc/hosts.",
    )
    source_address: Ip | None = Field(None, description="The local IP address for outgoing connections.")
    dkim: Dkim = Field({}, description=_DKIM)
    rate: Rate = Field(
        None,
        description="Recipients per second. `auto`: no limit, but for SES's SMTP endpoint the rate of its account, shared with "
        "`ses` transports of that account and region.",
    )
    share: Share = Field(1.0, description=_BY_SMTP + _SHARE)
    daily_reserve: Reserve = Field(0.1, description=_BY_SMTP + _RESERVE)
    tariff: Tariff | None = Field(None, description=_BY_SMTP + _TARIFF)
    preflight: bool = Field(False, description=_BY_SMTP + _PREFLIGHT + " Needs `identities_from`.")
    rewrite_from: Address | None = Field(None, description=_BY_SMTP + _REWRITE)
    identities_from: str | None = Field(
        None,
        description=_BY_SMTP
        + "A transport of type `ses` whose keys can list the verified identities of this account and region; SMTP credentials "
        "cannot.",
    )
    failover_after: Duration = Field(600.0, description=_FAILOVER)

    @property
    def relays(self) -> tuple[str, ...]:
        """The hosts in the order to try them."""
        return self.hosts or ((self.host,) if self.host else ())

    @model_validator(mode="before")
    @classmethod
    def _defaults_that_follow(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        secret = any(data.get(key) is not None for key in ("password", "password_file", "token", "token_file"))
        result = dict(data)
        if result.get("tls") is None:
            verified = secret or data.get("tls_name") or data.get("tls_fingerprints")
            result["tls"] = "required" if verified else "opportunistic"
        if result.get("port") is None:
            result["port"] = 465 if result["tls"] == "implicit" else 587 if secret else 25
        return result

    @model_validator(mode="after")
    def _go_together(self) -> SmtpTransport:
        problems: list[tuple[str, str]] = []
        password, token = self.password or self.password_file, self.token or self.token_file
        secret = password or token
        if self.host and self.hosts:
            problems.append(("hosts", "host is set too (use only one of the two)"))
        if not self.relays:
            problems.append(("host", "missing (set the relay's name)"))
        if self.password and self.password_file:
            problems.append(("password_file", "password is set too (use only one of the two)"))
        if self.token and self.token_file:
            problems.append(("token_file", "token is set too (use only one of the two)"))
        if password and token:
            problems.append(("token" if self.token else "token_file", "password is set too (use only one of the two)"))
        if self.username and not secret:
            problems.append(("username", "has no password (add password or password_file)"))
        if secret and not self.username:
            given = ("password", "password_file", "token", "token_file")
            problems.append((next(key for key in given if getattr(self, key)), "has no effect without username"))
        for key in ("tls_name", "tls_fingerprints"):
            if getattr(self, key) and self.tls in ("none", "opportunistic"):
                problems.append((key, f"has no effect with tls: {self.tls} (use required or implicit)"))
        problems += self._ses_problems()
        if problems:
            raise Crossed(problems)
        return self

    def _ses_problems(self) -> list[tuple[str, str]]:
        problems: list[tuple[str, str]] = []
        if len(self.relays) > 1 and any(map(is_ses, self.relays)):
            # What is shaped, paced and believed goes by SES or not, and a doubt must not be repeated in another region.
            why = "an SES endpoint must be the only host (use one transport for each SES endpoint"
            problems.append(("hosts", f"{why}, and a route that lists them in order)"))
        elif not self.relays or not is_ses(self.relays[0]):
            usual = SmtpTransport.model_fields
            problems += [
                (key, "has no effect: the relay is not SES (email-smtp.REGION.amazonaws.com)")
                for key in ("share", "daily_reserve", "tariff", "preflight", "rewrite_from", "identities_from")
                if getattr(self, key) != usual[key].default
            ]
        elif self.preflight and not self.identities_from:
            why = (
                "SMTP credentials cannot list identities (set identities_from to a transport of type ses of the same account and "
                "region"
            )
            problems.append(("preflight", f"{why}; rewrite_from does not need it)"))
        return problems


class DirectTransport(Part):
    """Direct delivery to the recipient domain's mail exchangers (MX)."""

    type: Literal["direct"] = Field(description="Direct delivery to the recipient domain's mail exchangers (MX).")
    port: Port = Field(25, description="The port of the MX hosts. Change it only in tests.")
    tls: TlsLevel = Field(
        "opportunistic", description="The TLS that mail hosts must offer: `none`, `opportunistic`, `required`, `dane` or `mta-sts`."
    )
    tls_policy: dict[Annotated[str, AfterValidator(_recipient_domain)], TlsLevel] = Field(
        {}, description="`tls` by recipient domain, or by `*.domain` for its sub-domains."
    )
    ca_file: FilePath | None = Field(
        None,
        description="CA certificates (PEM) to trust instead of the system's, for mail hosts and for hosts of MTA-STS policies.",
    )
    policy_port: Port = Field(443, description="The port of hosts of MTA-STS policies. Use another one than 443 only in tests.")
    tlsrpt_socket: FilePath | None = Field(
        None, description="The datagram socket of a TLSRPT collector, which is told the result of each connection."
    )
    nameservers: tuple[Nameserver, ...] = Field((), description="IP or IP:PORT of resolvers. Default: the system's.")
    allow_private_addresses: bool = Field(
        False, description="Connect to MX hosts on loopback and private networks. Only for tests."
    )
    address_families: tuple[Literal["ipv4", "ipv6"], ...] = Field(
        ("ipv4", "ipv6"), min_length=1, description="In order of preference. A family that is not listed is not used."
    )
    race_addresses: bool = Field(
        False,
        description="Alternate between the families and try the next address after 250 ms without an answer, instead of one after "
        "the other.",
    )
    source_address: Ip | None = Field(
        None, description="The local IP address for outgoing connections. Only its family is used then."
    )
    dkim: Dkim = Field({}, description=_DKIM)
    failover_after: Duration = Field(600.0, description=_FAILOVER)


class HoldTransport(Part):
    """Keeps mail in the queue until an operator releases it."""

    type: Literal["hold"] = Field(description="Keeps mail in the queue until an operator releases it.")


class DiscardTransport(Part):
    """Accepts mail and throws it away."""

    type: Literal["discard"] = Field(description="Accepts mail and throws it away.")


Transport = Annotated[
    SesTransport | SmtpTransport | DirectTransport | HoldTransport | DiscardTransport, Field(discriminator="type")
]
BY_TYPE: dict[str, type[Part]] = {
    "ses": SesTransport,
    "smtp": SmtpTransport,
    "direct": DirectTransport,
    "hold": HoldTransport,
    "discard": DiscardTransport,
}

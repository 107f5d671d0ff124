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

_FAILOVER = "Pause after which the route's next transport is tried."
_DKIM = "The DKIM keys by sender domain: `{selector, key_file}`, or a list of them where several sign."


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
_SHARE = "Of the account's rate, where other hosts use it too."
_RESERVE = "Of the 24 h quota, kept for priority high."
_BY_SMTP = "For SES's SMTP endpoint. "
_TARIFF = "What SES costs; for the metric of the estimated price."
_PREFLIGHT = "Refuse unverified sender domains at MAIL; without effect beside `rewrite_from`."
_REWRITE = "An address for messages whose From is not verified; Reply-To keeps the old one."
TlsLevel = Literal["none", "opportunistic", "required", "dane", "mta-sts"]


def _recipient_domain(value: str) -> str:
    return ("*." if value.startswith("*.") else "") + parse_domain(value.removeprefix("*."))


class ListManagement(Part):
    """An SES contact list, whose unsubscribed contacts SES leaves out."""

    contact_list: str = Field(min_length=1, description="The list's name.")
    topic: str | None = Field(None, min_length=1, description="The topic within it.")


class Tariff(Part):
    """What SES costs, in any one currency."""

    per_1000: Price = Field(0.0, description="A thousand recipients.")
    per_gb: Price = Field(0.0, description="A gigabyte (1,000,000,000 octets) of messages, each counted once a recipient.")


class SesTransport(Part):
    """Amazon SES by its API."""

    type: Literal["ses"] = Field(description="Amazon SES by its API.")
    region: Region | None = Field(None, description="AWS region, as in `us-east-1`. Default: what boto3's own chain finds.")
    api: Literal["auto", "v1", "v2"] = Field(
        "auto",
        description="`v1` (SendRawEmail, up to 10 MB), `v2` (SendEmail, Raw, up to 40 MB) or `auto`: v1, and v2 for what is larger "
        "or for what v1 lacks.",
    )
    endpoint_url: Url | None = Field(
        None, description="Another endpoint than the region's: a VPC endpoint, or a stand-in in tests."
    )
    fips: bool | None = Field(
        None,
        description="FIPS endpoints. Default: as AWS_USE_FIPS_ENDPOINT or the AWS configuration says.",
        json_schema_extra=_without_default,
    )
    dual_stack: bool | None = Field(
        None,
        description="Endpoints with IPv6 too. Default: as AWS_USE_DUALSTACK_ENDPOINT or the AWS configuration says.",
        json_schema_extra=_without_default,
    )
    access_key_id: KeyId | None = Field(
        None, description="With `secret_access_key`. Without it, `profile` and `role_arn`: boto3's own chain."
    )
    secret_access_key: SecretStr | None = Field(None, description="The secret of `access_key_id`.")
    secret_access_key_file: FilePath | None = Field(
        None, description="The file or systemd credential that holds `secret_access_key`."
    )
    profile: str | None = Field(None, min_length=1, description="A profile of the AWS configuration files.")
    role_arn: str | None = Field(None, pattern="^arn:", description="A role to assume with the credentials found.")
    external_id: str | None = Field(None, min_length=1, description="The external id that the role wants.")
    configuration_set: Tag | None = Field(None, description="The SES configuration set of every message.")
    tags: dict[TagName, Tag] = Field({}, description="SES message tags, name to value. `sesrelay-id` is the relay's own.")
    source_arn: str | None = Field(None, pattern="^arn:", description="Sending authorisation: the identity's ARN.")
    from_arn: str | None = Field(None, pattern="^arn:", description="Sending authorisation: the ARN for the header From.")
    return_path_arn: str | None = Field(None, pattern="^arn:", description="Sending authorisation: the ARN for the return path.")
    tenant: str | None = Field(None, min_length=1, max_length=64, description="The SES tenant that sends (API v2).")
    endpoint_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$", description="The id of an SES multi-region endpoint (API v2)."
    )
    list_management: ListManagement | None = Field(None, description="The SES contact list of every message (API v2).")
    feedback_forwarding: Address | None = Field(
        None, description="Where SES forwards bounces and complaints by mail, instead of the sender (API v2)."
    )
    rate: Rate = Field(None, description="Recipients a second; `auto`: from the account, following its changes.")
    share: Share = Field(1.0, description=_SHARE)
    daily_reserve: Reserve = Field(0.1, description=_RESERVE)
    tariff: Tariff | None = Field(None, description=_TARIFF)
    preflight: bool = Field(False, description=_PREFLIGHT)
    rewrite_from: Address | None = Field(None, description=_REWRITE)
    trusted_headers: tuple[SesHeader, ...] = Field((), description="`X-SES-*` headers that applications may set.")
    thread_ids: bool = Field(True, description="The application's Message-ID, which SES overwrites, also goes into References.")
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
    """Any relay by SMTP, SES's own SMTP endpoint among them."""

    type: Literal["smtp"] = Field(description="Another relay by SMTP, SES's SMTP endpoint among them.")
    host: Host | None = Field(None, description="The relay's name or IP address; or `hosts`.")
    hosts: tuple[Host, ...] = Field((), description="Several relays, tried in this order; an SES endpoint stands alone.")
    # The defaults of port and tls follow from other keys: _defaults_that_follow.
    port: Port = Field(
        25,
        description="Default: 587 with a password or a token, 465 with `tls: implicit`, else 25.",
        json_schema_extra=_without_default,
    )
    tls: Literal["none", "opportunistic", "required", "implicit"] = Field(
        "opportunistic",
        description="STARTTLS where offered, always, or TLS from the start. Default: `required` with a password, a token, "
        "`tls_name` or `tls_fingerprints`, else `opportunistic`.",
        json_schema_extra=_without_default,
    )
    ca_file: FilePath | None = Field(None, description="CA certificates (PEM) to trust instead of the system's.")
    tls_name: Host | None = Field(None, description="The name that the certificate must have. Default: the relay's.")
    tls_fingerprints: Annotated[tuple[Fingerprint, ...], BeforeValidator(as_list)] = Field(
        (), description="SHA-256 of the certificates that are taken, whoever issued them and for whatever name."
    )
    username: str | None = Field(None, min_length=1, description="The user name for AUTH.")
    password: SecretStr | None = Field(None, description="The password for AUTH (PLAIN, LOGIN, CRAM-MD5).")
    password_file: FilePath | None = Field(None, description="The file or systemd credential that holds `password`.")
    token: SecretStr | None = Field(None, description="An OAuth 2 access token for AUTH XOAUTH2, instead of a password.")
    token_file: FilePath | None = Field(
        None, description="The file or systemd credential that holds `token`; read anew for each login."
    )
    rewrite_sender: Address | None = Field(
        None,
        description="The envelope sender of every message, for a relay that takes no other. Bounces go there. Default: as it is.",
    )
    nameservers: tuple[Nameserver, ...] = Field(
        (), description="IP or IP:PORT of resolvers that know the relay's name. Default: as the system finds names, /etc/hosts too."
    )
    source_address: Ip | None = Field(None, description="The IP address to connect from.")
    dkim: Dkim = Field({}, description=_DKIM)
    rate: Rate = Field(
        None,
        description="Recipients a second; `auto`: no limit, but at SES's SMTP endpoint the pace of its account, shared with `ses` "
        "transports of that account and region.",
    )
    share: Share = Field(1.0, description=_BY_SMTP + _SHARE)
    daily_reserve: Reserve = Field(0.1, description=_BY_SMTP + _RESERVE)
    tariff: Tariff | None = Field(None, description=_BY_SMTP + _TARIFF)
    preflight: bool = Field(False, description=_BY_SMTP + _PREFLIGHT + " Wants `identities_from`.")
    rewrite_from: Address | None = Field(None, description=_BY_SMTP + _REWRITE)
    identities_from: str | None = Field(
        None,
        description=_BY_SMTP
        + "The transport of type `ses` whose keys list the verified identities of this account and region, which "
        "SMTP credentials cannot.",
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
    """Straight to the recipient domain's mail exchangers."""

    type: Literal["direct"] = Field(description="To the recipient domain's MX hosts.")
    port: Port = Field(25, description="The port of the MX hosts; another one than 25 only in tests.")
    tls: TlsLevel = Field(
        "opportunistic", description="What TLS mail hosts have to show: `none`, `opportunistic`, `required`, `dane` or `mta-sts`."
    )
    tls_policy: dict[Annotated[str, AfterValidator(_recipient_domain)], TlsLevel] = Field(
        {}, description="`tls` by recipient domain, or `*.domain` for its sub-domains."
    )
    ca_file: FilePath | None = Field(
        None, description="CA certificates (PEM) to trust instead of the system's, of mail hosts and of MTA-STS policies' hosts."
    )
    policy_port: Port = Field(443, description="The port of MTA-STS policies' hosts; another one than 443 only in tests.")
    tlsrpt_socket: FilePath | None = Field(
        None, description="The datagram socket of a TLSRPT collector, which is told how each connection went."
    )
    nameservers: tuple[Nameserver, ...] = Field((), description="IP or IP:PORT of resolvers. Default: the system's.")
    allow_private_addresses: bool = Field(
        False, description="MX hosts on loopback and private networks are connected to. Only in tests."
    )
    address_families: tuple[Literal["ipv4", "ipv6"], ...] = Field(
        ("ipv4", "ipv6"), min_length=1, description="In order of preference; one that is not named is not used."
    )
    race_addresses: bool = Field(
        False, description="Both families in turn, the next after 250 ms without an answer, instead of one after the other."
    )
    source_address: Ip | None = Field(None, description="The IP address to connect from; only its family is used then.")
    dkim: Dkim = Field({}, description=_DKIM)
    failover_after: Duration = Field(600.0, description=_FAILOVER)


class HoldTransport(Part):
    """Keeps mail in the queue until an operator says what becomes of it."""

    type: Literal["hold"] = Field(description="Keeps mail in the queue until an operator releases it.")


class DiscardTransport(Part):
    """Takes mail and forgets it."""

    type: Literal["discard"] = Field(description="Takes mail and forgets it.")


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

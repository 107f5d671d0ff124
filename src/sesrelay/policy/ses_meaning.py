"""The table: what each answer of SES, by API or by SMTP, means for the mail, and what the operator has to do about it.

Invariant: only rows that say FAIL (or a split or repair that ends there) end a delivery; an answer that no row knows
defers the message. Rows are tried in order, by code, then by text.
Invariant: an address, a domain or a value of the header that SES repeats chooses no row.

Source: Amazon SES developer guide, "Error codes" and "Amazon SES SMTP response codes", and API references v1 and v2; docs/ses.md is
the operator's view.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

from sesrelay.mail.outcome import PauseReason, Scope
from sesrelay.mail.value import value
from sesrelay.policy.ses_words import ADDRESS_TEXT, HEADER_TEXT, LEAVE_SANDBOX, TWICE, UNWANTED_TEXT, own_words

SHOWN_MAX = 500  # characters of a refusal that are shown


@value(frozen=True, slots=True)
class Refused:
    """`code` as the service names it, without `Exception`, name space or URL; empty where only the status speaks."""

    status: int
    code: str
    text: str

    def __str__(self) -> str:
        name = self.code or f"HTTP {self.status}"
        return f"{name}: {self.text[:SHOWN_MAX]}" if self.text else name


class Action(Enum):
    DEFER = auto()
    FAIL = auto()
    HOLD = auto()
    RELOAD = auto()
    """Read the credentials anew and try once more; then defer."""
    SPLIT = auto()
    """Some address is refused: find the recipient, and the others go; or it is one in the header, and the message fails."""
    REPAIR = auto()
    """Take out what the header has more than once, as the answer names it, and try once more; then fail."""
    UNVERIFIED = auto()
    """By whose address is named: the sender's domain waits, recipients fail."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """Units: `retry_after` seconds, None: policy decides. `enhanced` lacks its class digit. `remedy` has {fields}.

    `tolerance`: so many in a row before it pauses the account; see `Deferred`.
    """

    action: Action
    scope: Scope
    enhanced: str
    reason: PauseReason | None = None
    remedy: str = ""
    retry_after: float | None = None
    tolerance: int = 1


@dataclass(frozen=True, slots=True)
class Row:
    """`codes` in lower case without `Exception`; a final `*` matches any ending; empty: any code.

    `text` is looked for in SES's own words, or, where `whole`, in all of the answer. `apis`: by which it can be said.
    """

    name: str
    codes: frozenset[str]
    text: re.Pattern[str] | None
    meaning: Meaning
    apis: tuple[str, ...] = ("v1", "v2", "smtp")
    whole: bool = False

    def matches(self, refused: Refused, api: str, words: str) -> bool:
        code = refused.code.lower()
        known = not self.codes or code in self.codes or any(c[-1] == "*" and code.startswith(c[:-1]) for c in self.codes)
        said = refused.text if self.whole else words
        return known and api in self.apis and (self.text is None or self.text.search(said) is not None)


def meaning(refused: Refused, api: str = "v1") -> Meaning:
    """Return what `refused` means. `api` is the one that was called: v1, v2 or smtp."""
    words = own_words(refused.text)
    for row in TABLE:
        if row.matches(refused, api, words):
            # A server that fails says nothing about the message, whatever code it gives.
            return UNAVAILABLE if refused.status >= 500 and row.meaning.action in ENDS else row.meaning
    if refused.status == 429:
        return THROTTLED
    if refused.status >= 500 or refused.status == 408:
        return UNAVAILABLE
    return UNKNOWN


def by_smtp(text: str) -> Refused:
    """Return a refusal by SES's SMTP endpoint as its API would put it: the kind that leads the text stands for the API's code.

    "Transaction failed" is said of messages and of accounts: where neither the header nor an address is meant, it is looked up as a
    rejection, whose rows go by their texts, as is a text without any kind.
    """
    kind, words = _SMTP_KIND.match(text), own_words(text)
    failed = kind is not None and kind[1].lower() == "transaction failed"
    if _DENIED_TEXT.search(words) or (kind is not None and kind[1].lower() == "access denied"):
        code = "AccessDenied"
    elif _FORM_TEXT.search(text) or (failed and (HEADER_TEXT.search(words) or ADDRESS_TEXT.search(words))):
        code = "InvalidParameterValue"
    else:
        code = "MessageRejected"
    return Refused(400, code, text[kind.end() :] if kind else text)


def without_credentials(said: str) -> Meaning:
    """Return what missing credentials mean, by what was `said`: who hands them out looks at the clock as SES does."""
    if blames_the_clock(said):
        return CLOCK
    if _SSO_SAID.search(said):
        return NO_LOGIN
    return NO_ROLE if _ROLE_SAID.search(said) else NO_CREDENTIALS


def blames_the_clock(said: str) -> bool:
    """Tell whether what AWS `said`, code and text, is about this machine's clock; the code may be that of a wrong key."""
    return _CLOCK_SAID.search(said) is not None


def about_asking(said: str, allow: str) -> str:
    """Return what to do where SES did not tell of the account, by what was `said`; `allow`: where a policy forbids it."""
    if blames_the_clock(said):
        return CLOCK.remedy
    return allow if "AccessDenied" in said else ASKED_AGAIN


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.lower().split())


def _text(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.I)


_NEXTHOP, _TRANSPORT, _SENDER, _MESSAGE, _RECIPIENT = (
    Scope.NEXTHOP,
    Scope.TRANSPORT,
    Scope.SENDER_DOMAIN,
    Scope.MESSAGE,
    Scope.RECIPIENT,
)
_THROTTLES = _codes("Throttling Throttled ThrottledException TooManyRequests RequestThrottled RequestLimitExceeded SlowDown")
_INVALID = _codes("InvalidParameterValue InvalidParameterCombination InvalidParameter BadRequest ValidationError Validation")
_DENIED = _codes("AccessDenied*")
_REJECTED = _codes("MessageRejected")
_BY_TEXT = _INVALID | _REJECTED
"""The codes under which SES says whatever has none of its own. Of an invalid value SES repeats much that is not its own word,
so what speaks of the account is looked for among rejections alone.
"""

THROTTLED = Meaning(
    Action.DEFER, _NEXTHOP, "4.5", PauseReason.THROTTLED,
    "Nothing to do: the relay sends more slowly now. If this does not end, request a higher sending rate (SES console, Account "
    "dashboard, Request a limit increase), or lower `rate` if other hosts send through the same account.",
    tolerance=3,
)  # fmt: skip
QUOTA = Meaning(
    Action.DEFER, _NEXTHOP, "4.5", PauseReason.QUOTA,
    "The account's 24 hour quota in {region} is used up; sending continues when part of it becomes free again. To send more, "
    "request a higher quota (SES console, Account dashboard).",
    60.0,
)  # fmt: skip
UNAVAILABLE = Meaning(
    Action.DEFER, _NEXTHOP, "3.2", PauseReason.UNAVAILABLE,
    "SES in {region} has an internal fault; the relay tries again by itself. See https://health.aws.amazon.com/health/status.",
    tolerance=5,
)  # fmt: skip
UNREACHABLE = Meaning(
    Action.DEFER, _NEXTHOP, "4.1", PauseReason.UNAVAILABLE,
    "Cannot connect to {endpoint}: check DNS, firewall, proxy (HTTPS_PROXY) and the CA certificates (AWS_CA_BUNDLE).",
)  # fmt: skip
CUT_OFF = Meaning(
    Action.DEFER, _MESSAGE, "4.2", PauseReason.UNAVAILABLE,
    "The connection to {endpoint} was lost, or an answer came, before the whole message was sent, so SES does not have the "
    "message; it is tried again. If this happens with every large message, check what is between this host and SES (proxy, "
    "firewall, MTU).",
)  # fmt: skip
NO_CREDENTIALS = Meaning(
    Action.DEFER, _NEXTHOP, "7.8", PauseReason.CREDENTIALS,
    "The credentials `{credential_id}` could not be loaded: set access_key_id and secret_access_key_file, profile or role_arn of "
    "this transport, or check boto3's default credential chain (environment, ~/.aws of the daemon's user, instance role).",
)  # fmt: skip
NO_LOGIN = replace(
    NO_CREDENTIALS,
    remedy="The IAM Identity Center login of `{credential_id}` has expired, or there was none: run `aws sso login` for its profile "
    "as the daemon's user; sending then continues by itself. A role or access keys need no login.",
)
NO_ROLE = replace(
    NO_CREDENTIALS,
    remedy="STS refuses to assume `{credential_id}`: check that the keys or profile used are valid and are allowed sts:AssumeRole "
    "for it, that the role's trust policy names their user or role, and that external_id is set if the trust policy requires it.",
)
BAD_CREDENTIALS = Meaning(
    Action.RELOAD, _NEXTHOP, "7.8", PauseReason.CREDENTIALS,
    "SES refuses the credentials `{credential_id}` in {region}: check that the access key exists, is active, belongs to this "
    "secret, and is allowed ses:SendRawEmail; correct them and reload (SIGHUP). SMTP credentials do not work here.",
)  # fmt: skip
CLOCK = Meaning(
    Action.DEFER, _NEXTHOP, "3.5", PauseReason.CLOCK,
    "This machine's clock differs by more minutes than SES allows: turn on time synchronisation (timedatectl set-ntp true).",
)  # fmt: skip
SUSPENDED = Meaning(
    Action.DEFER, _NEXTHOP, "7.0", PauseReason.SUSPENDED,
    "AWS or you paused sending for this account in {region}: read the SES console (Account dashboard, Reputation metrics) and "
    "the mail that AWS sent to the account's address; then run `aws sesv2 put-account-sending-attributes --sending-enabled`.",
    300.0,
)  # fmt: skip
SET_PAUSED = Meaning(
    Action.DEFER, _TRANSPORT, "7.0", PauseReason.SUSPENDED,
    "Sending is paused for the configuration set {configuration_set}: run `aws sesv2 put-configuration-set-sending-options "
    "--sending-enabled --configuration-set-name {configuration_set}` in {region}, or set another configuration_set.",
    300.0,
)  # fmt: skip
TENANT_PAUSED = Meaning(
    Action.DEFER, _TRANSPORT, "7.0", PauseReason.SUSPENDED,
    "AWS or you paused sending for the tenant that this transport names: read the SES console in {region} (Tenants); then run "
    "`aws sesv2 update-reputation-entity-customer-managed-status --reputation-entity-type RESOURCE --reputation-entity-reference "
    "ARN --sending-status ENABLED` with the tenant's ARN, or set another tenant.",
    300.0,
)  # fmt: skip
MISCONFIGURED = Meaning(
    Action.DEFER, _TRANSPORT, "3.5", PauseReason.CONFIGURATION,
    "SES in {region} does not know something that this transport names (configuration_set {configuration_set}, tags, *_arn, "
    "tenant): create it there, or correct the transport and reload (SIGHUP).",
)  # fmt: skip
MAIL_FROM = Meaning(
    Action.DEFER, _SENDER, "7.1", PauseReason.CONFIGURATION,
    "The custom MAIL FROM domain of {sender_domain} is not verified in {region}: its MX record must be exactly `10 "
    "feedback-smtp.{region}.amazonses.com`, and its TXT record `v=spf1 include:amazonses.com ~all`.",
)  # fmt: skip
UNVERIFIED = Meaning(
    Action.UNVERIFIED, _SENDER, "7.1", PauseReason.CONFIGURATION,
    "{sender_domain} is not a verified identity of this account in {region}: run `sesrelay domain add {sender_domain} --region "
    "{region}` (or SES console, Identities) and publish the DKIM records it shows; the domain's mail is then sent.",
)  # fmt: skip
SANDBOX = Meaning(
    Action.FAIL, _RECIPIENT, "7.1", None,
    "The account is in the SES sandbox in {region} and may send to verified addresses only: " + LEAVE_SANDBOX + ".",
)  # fmt: skip
DENIED_IDENTITY = Meaning(
    Action.DEFER, _SENDER, "7.1", PauseReason.CREDENTIALS,
    "The IAM policy of `{credential_id}` does not allow ses:SendRawEmail for {sender_domain}: add the domain's identity to the "
    "policy's Resource.",
)  # fmt: skip
DENIED_IDENTITY_V2 = replace(
    DENIED_IDENTITY,
    remedy="The IAM policy of `{credential_id}` does not allow ses:SendEmail for {sender_domain}, which the v2 API needs in "
    "addition to ses:SendRawEmail: add the identity or the action to the policy, or set `api: v1` for this transport.",
)
NOT_OF_TENANT = Meaning(
    Action.DEFER, _SENDER, "7.1", PauseReason.CONFIGURATION,
    "{sender_domain} is not associated with the tenant that this transport names: run `aws sesv2 "
    "create-tenant-resource-association --tenant-name TENANT --resource-arn ARN` in {region} with the ARN of the domain's "
    "identity.",
)  # fmt: skip
DENIED_V2 = Meaning(
    Action.HOLD, _MESSAGE, "7.1", None,
    "This message is too large for the v1 API, and the IAM policy of `{credential_id}` does not allow ses:SendEmail, which v2 "
    "needs in addition to ses:SendRawEmail: add it, then release the message (`sesrelay queue release ID`).",
)  # fmt: skip
DENIED_V2_ALONE = Meaning(
    Action.DEFER, _NEXTHOP, "7.8", PauseReason.CREDENTIALS,
    "The IAM policy of `{credential_id}` does not allow ses:SendEmail, which the v2 API needs in addition to ses:SendRawEmail: "
    "add it, or set `api: v1` for this transport.",
)  # fmt: skip
REJECTED = Meaning(
    Action.FAIL, _MESSAGE, "7.1", None, "SES rejects this message; its answer says why."
)  # fmt: skip
TOO_LARGE = Meaning(
    Action.FAIL, _MESSAGE, "3.4", None,
    "SES accepts messages up to 10 MB (10485760 octets) by the v1 API and up to 40 MB by v2 (`api: auto`): send a link, or route "
    "large mail through another transport.",
)  # fmt: skip
BAD_HEADER = Meaning(Action.FAIL, _MESSAGE, "6.0", None, "SES does not accept the message as the application wrote it.")
DUPLICATE = Meaning(Action.REPAIR, _MESSAGE, "6.0", None, "The application wrote a header field twice that may appear only once.")
BAD_ADDRESS = Meaning(Action.SPLIT, _RECIPIENT, "1.3", None, "SES does not accept an address of this form.")
BAD_ADDRESS_WITHIN = Meaning(
    Action.FAIL, _MESSAGE, "6.0", None,
    "The recipients' addresses are correct, but SES does not accept an address in the header (From, Sender, Reply-To, To or Cc). "
    "Have the application write that address in full.",
)  # fmt: skip
UNWANTED = Meaning(Action.SPLIT, _RECIPIENT, "7.1", None, "SES does not send to this address: it is on a suppression list.")
UNKNOWN = Meaning(
    Action.DEFER, _MESSAGE, "0.0", None,
    "sesrelay does not know this answer and treats it as temporary: the message is tried again until max_age.",
)  # fmt: skip
AMBIGUOUS = Meaning(
    Action.DEFER, _MESSAGE, "4.2", None,
    "The answer of SES was lost, so SES may have sent the message: look for it in the events of your configuration set.",
)  # fmt: skip

ASKED_AGAIN = "the relay asks again by itself; the error says what prevents it"

ENDS = frozenset({Action.FAIL, Action.SPLIT, Action.REPAIR})
"""What ends a delivery, if nothing else can be tried."""
_SMTP_KIND = _text(r"\A(transaction failed|message rejected|access denied): *")
_FORM_TEXT = _text(r"illegal address|invalid (?:recipient|address|domain name)")
_DENIED_TEXT = _text(r"access denied|not authorized to perform")
_TENANT_TEXT = _text(r"\btenant\b")
_STOPPED = r"\b(?:paused|suspended|disabled|shut ?down|locked|under review)\b"
_SUSPENDED_TEXT = _text(rf"\b(?:sending|account)\b.{{0,80}}{_STOPPED}|{_STOPPED}.{{0,80}}\b(?:sending|account)\b")
_TENANT_PAUSED_TEXT = _text(rf"\A(?=.*\btenant\b).*{_STOPPED}")
_SET_TEXT = _text(r"configuration[ -]?set")
_QUOTA_TEXT = _text(
    r"\bdaily (?:\w+ ){0,2}quota\b|\bquota (?:is |was |has been )?exceeded\b|\bexceeded (?:\w+ ){0,4}quota\b"
    r"|\b24.hour\b.{0,40}\b(?:limit|quota|period)\b|\b(?:limit|quota)\b.{0,60}\b24.hour\b"
)
_NOT_VERIFIED_TEXT = _text(r"not verified|failed the check in region|not have authority to send")
_FAULT_TEXT = _text(r"\btemporary (?:service|authentication) failure|\binternal failure|\bservice unavailable")
_NO_SET_TEXT = _text(r"\A(?=.*configuration[ -]?set\b).*\b(?:(?:does not|doesn't) exist|not found)\b")
_CLOCK_TEXT = _text(r"signature (?:not yet current|expired)|clock|skew")
_CLOCK_SAID = _text(r"\bsignature (?:not yet current|expired)\b|\bRequest(?:Expired|TimeTooSkewed|InTheFuture)\b")
_SSO_SAID = _text(r"\bSSO (?:token|session)\b|\btoken from sso\b")  # botocore's exceptions
_ROLE_SAID = _text(
    r"\((?:AccessDenied|InvalidClientTokenId|SignatureDoesNotMatch|ExpiredToken)\w*\) when calling the AssumeRole\w* "
)
_SET_PAUSED_TEXT = _text(rf"\A(?=.*configuration[ -]?set).*{_STOPPED}")
_NOT_OF_TENANT_TEXT = _text(r"\Atenant not associated\b(?!.*:(?:configuration-set|template)/).*:identity/")

TABLE: tuple[Row, ...] = (
    Row("MAIL FROM domain, by text", _BY_TEXT, _text(r"\A(?=.*\bmail from domain\b).*\bnot verified\b"), MAIL_FROM),
    Row("not verified", _BY_TEXT, _NOT_VERIFIED_TEXT, UNVERIFIED),
    Row("daily quota", _THROTTLES | _REJECTED | _codes("LimitExceeded"), _QUOTA_TEXT, QUOTA),
    Row("daily quota, v2", _codes("LimitExceeded SendingQuotaExceeded"), None, QUOTA),
    Row("rate", _THROTTLES, None, THROTTLED),
    Row("rate, by text", _REJECTED, _text(r"\bsending rate exceeded\b|\bthrottling\b"), THROTTLED),
    Row("fault of SES, by text", _REJECTED, _FAULT_TEXT, UNAVAILABLE),
    Row("set paused", _codes("ConfigurationSetSendingPaused"), None, SET_PAUSED),
    Row("set paused, by text", _codes("SendingPaused"), _SET_TEXT, SET_PAUSED),
    Row("tenant paused", _codes("SendingPaused"), _TENANT_TEXT, TENANT_PAUSED),
    Row("tenant paused, by text", _BY_TEXT | _DENIED, _TENANT_PAUSED_TEXT, TENANT_PAUSED),
    Row("account paused", _codes("AccountSendingPaused SendingPaused AccountSuspended"), None, SUSPENDED),
    Row("set paused, by text of a rejection", _REJECTED | _DENIED, _SET_PAUSED_TEXT, SET_PAUSED),
    Row("account paused, by text", _REJECTED | _DENIED, _SUSPENDED_TEXT, SUSPENDED),
    Row("no such set", _codes("ConfigurationSetDoesNotExist NotFound TenantNotFound"), None, MISCONFIGURED),
    Row("no such set, by text", _REJECTED | _DENIED, _NO_SET_TEXT, MISCONFIGURED),
    Row("duplicate header", _BY_TEXT, TWICE, DUPLICATE),
    Row(
        "set, tag, ARN or tenant refused",
        _INVALID,
        _text(r"configuration[ -]?set|\btags?\b|\barn\b|\btenant\b"),
        MISCONFIGURED,
        apis=("v1", "v2"),  # by SMTP there is nothing of the kind that a transport could name
    ),
    Row("identity not of the tenant", _DENIED | _REJECTED, _NOT_OF_TENANT_TEXT, NOT_OF_TENANT, whole=True),
    Row("tenant refused", _codes("MessageRejected AccessDenied* Conflict"), _TENANT_TEXT, MISCONFIGURED),
    Row("MAIL FROM domain", _codes("MailFromDomainNotVerified"), None, MAIL_FROM),
    Row("unwanted recipient", _REJECTED, UNWANTED_TEXT, UNWANTED),
    # Without a text it may be the sender that is not verified, and that is no fault of the message.
    Row("refused message", _REJECTED, _text(r"\S"), REJECTED),
    Row("too large", _INVALID, _text(r"message length|\btoo large\b|\btoo long: |maximum message size"), TOO_LARGE),
    Row("bad header", _INVALID, HEADER_TEXT, BAD_HEADER),
    Row("unwanted address", _INVALID, UNWANTED_TEXT, UNWANTED),
    Row("bad address", _INVALID, ADDRESS_TEXT, BAD_ADDRESS),
    Row("bad message", _INVALID, _text(r"\Atransaction failed"), BAD_HEADER, whole=True),
    Row("v2 not allowed", _DENIED, _text(r"ses:SendEmail\b"), DENIED_V2, apis=("v2",), whole=True),
    Row("identity not allowed", _DENIED, _text(r":identity/"), DENIED_IDENTITY, whole=True),
    Row("clock, by text", _codes("SignatureDoesNotMatch IncompleteSignature InvalidSignature"), _CLOCK_TEXT, CLOCK),
    Row("clock", _codes("RequestExpired RequestTimeTooSkewed RequestInTheFuture"), None, CLOCK),
    Row(
        "credentials",
        _codes(
            "InvalidClientTokenId SignatureDoesNotMatch AccessDenied* ExpiredToken* UnrecognizedClient* OptInRequired "
            "InvalidSignature IncompleteSignature MissingAuthenticationToken NotAuthorized AuthFailure InvalidAccessKeyId "
            "InvalidSecurity InvalidToken TokenRefreshRequired"
        ),
        None,
        BAD_CREDENTIALS,
    ),
    Row("fault of SES", _codes("InternalFailure InternalServiceError InternalServerError ServiceUnavailable*"), None, UNAVAILABLE),
)


class _Gaps(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"


def remedy(of: Meaning, facts: Mapping[str, str]) -> str:
    """Return the remedy of `of` with the facts of this transport and message filled in."""
    return of.remedy.format_map(_Gaps(facts))

"""The table: what each answer of SES, its API's or its SMTP endpoint's, means for the mail, and what the operator has to do about it.

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
    """Return what it means that credentials could not be had, by what was `said`: who hands them out looks at the clock as SES does."""
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
"""The codes under which SES says whatever has none of its own. Of an invalid value SES repeats much that is not its own word, so what
speaks of the account is looked for among rejections alone.
"""

THROTTLED = Meaning(
    Action.DEFER, _NEXTHOP, "4.5", PauseReason.THROTTLED,
    "Nothing to do: the pace was lowered. If it stays, raise the account's sending rate (SES console, Account dashboard, "
    "Request a limit increase) or lower `rate`, where other hosts send through the same account.",
    tolerance=3,
)  # fmt: skip
QUOTA = Meaning(
    Action.DEFER, _NEXTHOP, "4.5", PauseReason.QUOTA,
    "The account's 24 hour quota in {region} is used up; mail goes on as it frees. To send more, ask for a higher quota "
    "in the SES console under Account dashboard.",
    60.0,
)  # fmt: skip
UNAVAILABLE = Meaning(
    Action.DEFER, _NEXTHOP, "3.2", PauseReason.UNAVAILABLE,
    "SES in {region} has a fault of its own; it is tried again. See https://health.aws.amazon.com/health/status.",
    tolerance=5,
)  # fmt: skip
UNREACHABLE = Meaning(
    Action.DEFER, _NEXTHOP, "4.1", PauseReason.UNAVAILABLE,
    "No connection to {endpoint} can be made: look at DNS, firewall, proxy (HTTPS_PROXY) and the CA certificates "
    "(AWS_CA_BUNDLE).",
)  # fmt: skip
CUT_OFF = Meaning(
    Action.DEFER, _MESSAGE, "4.2", PauseReason.UNAVAILABLE,
    "The connection to {endpoint} went, or was answered, before the whole message had left, so SES cannot have it, and it is tried "
    "again. Where that is always so for large messages, look at what is between here and there (proxy, firewall, MTU).",
)  # fmt: skip
NO_CREDENTIALS = Meaning(
    Action.DEFER, _NEXTHOP, "7.8", PauseReason.CREDENTIALS,
    "The credentials `{credential_id}` could not be had: set access_key_id and secret_access_key_file, profile or role_arn "
    "of this transport, or see to boto3's own chain (environment, ~/.aws of the daemon's user, instance role).",
)  # fmt: skip
NO_LOGIN = replace(
    NO_CREDENTIALS,
    remedy="The login to IAM Identity Center behind `{credential_id}` is over, or there was none: run `aws sso login` for its profile "
    "as the daemon's user, and mail goes on by itself. For a relay, whom nobody logs in, a role or keys are better.",
)
NO_ROLE = replace(
    NO_CREDENTIALS,
    remedy="STS does not let `{credential_id}` be assumed: the keys or the profile that assume it have to be valid and may do "
    "sts:AssumeRole for it, and its trust policy has to name whose they are, and the external_id where it asks for one.",
)
BAD_CREDENTIALS = Meaning(
    Action.RELOAD, _NEXTHOP, "7.8", PauseReason.CREDENTIALS,
    "SES refuses the credentials `{credential_id}` in {region}: see that the key exists, is active, belongs to its secret, "
    "and may do ses:SendRawEmail; put the new secret in place and reload (SIGHUP). SMTP credentials do not work here.",
)  # fmt: skip
CLOCK = Meaning(
    Action.DEFER, _NEXTHOP, "3.5", PauseReason.CLOCK,
    "This machine's clock is wrong by more minutes than SES allows: start time synchronisation "
    "(timedatectl set-ntp true).",
)  # fmt: skip
SUSPENDED = Meaning(
    Action.DEFER, _NEXTHOP, "7.0", PauseReason.SUSPENDED,
    "AWS or you paused sending for this account in {region}: read the SES console (Account dashboard, Reputation metrics) "
    "and the account's mailbox; then `aws sesv2 put-account-sending-attributes --sending-enabled`.",
    300.0,
)  # fmt: skip
SET_PAUSED = Meaning(
    Action.DEFER, _TRANSPORT, "7.0", PauseReason.SUSPENDED,
    "Sending is paused for the configuration set {configuration_set}: `aws sesv2 put-configuration-set-sending-options "
    "--sending-enabled --configuration-set-name {configuration_set}` in {region}, or name another set.",
    300.0,
)  # fmt: skip
TENANT_PAUSED = Meaning(
    Action.DEFER, _TRANSPORT, "7.0", PauseReason.SUSPENDED,
    "AWS or you paused sending for the tenant that this transport names: read the SES console in {region} (Tenants); then "
    "`aws sesv2 update-reputation-entity-customer-managed-status --reputation-entity-type RESOURCE "
    "--reputation-entity-reference ARN --sending-status ENABLED` with the tenant's ARN, or name another tenant.",
    300.0,
)  # fmt: skip
MISCONFIGURED = Meaning(
    Action.DEFER, _TRANSPORT, "3.5", PauseReason.CONFIGURATION,
    "SES in {region} does not know what this transport names (configuration_set {configuration_set}, tags, *_arn, tenant): "
    "create it there, or mend the transport and reload (SIGHUP).",
)  # fmt: skip
MAIL_FROM = Meaning(
    Action.DEFER, _SENDER, "7.1", PauseReason.CONFIGURATION,
    "The custom MAIL FROM domain of {sender_domain} is not verified in {region}: its MX must be exactly "
    "`10 feedback-smtp.{region}.amazonses.com`, and its TXT `v=spf1 include:amazonses.com ~all`.",
)  # fmt: skip
UNVERIFIED = Meaning(
    Action.UNVERIFIED, _SENDER, "7.1", PauseReason.CONFIGURATION,
    "{sender_domain} is not a verified identity of this account in {region}: `sesrelay domain add {sender_domain} "
    "--region {region}` (or SES console, Identities), publish the DKIM records it shows, "
    "and its mail goes out.",
)  # fmt: skip
SANDBOX = Meaning(
    Action.FAIL, _RECIPIENT, "7.1", None,
    "The account is in the SES sandbox in {region} and sends to verified addresses only: " + LEAVE_SANDBOX + ".",
)  # fmt: skip
DENIED_IDENTITY = Meaning(
    Action.DEFER, _SENDER, "7.1", PauseReason.CREDENTIALS,
    "The policy of `{credential_id}` does not allow ses:SendRawEmail for {sender_domain}: add its identity to the policy's "
    "Resource.",
)  # fmt: skip
DENIED_IDENTITY_V2 = replace(
    DENIED_IDENTITY,
    remedy="The policy of `{credential_id}` does not allow ses:SendEmail for {sender_domain}, which the v2 API wants beside "
    "ses:SendRawEmail: add its identity, or the action, to the policy, or let this transport use `api: v1`.",
)
NOT_OF_TENANT = Meaning(
    Action.DEFER, _SENDER, "7.1", PauseReason.CONFIGURATION,
    "{sender_domain} is not among the resources of the tenant that this transport names: `aws sesv2 "
    "create-tenant-resource-association --tenant-name TENANT --resource-arn ARN` in {region} with the ARN of its identity.",
)  # fmt: skip
DENIED_V2 = Meaning(
    Action.HOLD, _MESSAGE, "7.1", None,
    "This message is too big for the v1 API, and the policy of `{credential_id}` lacks ses:SendEmail, which v2 wants beside "
    "ses:SendRawEmail: add it, then release the message (`sesrelay queue release ID`).",
)  # fmt: skip
DENIED_V2_ALONE = Meaning(
    Action.DEFER, _NEXTHOP, "7.8", PauseReason.CREDENTIALS,
    "The policy of `{credential_id}` lacks ses:SendEmail, which the v2 API wants beside ses:SendRawEmail: add it, or let this "
    "transport use `api: v1`.",
)  # fmt: skip
REJECTED = Meaning(
    Action.FAIL, _MESSAGE, "7.1", None, "SES refuses this message for what it is; the answer says why."
)  # fmt: skip
TOO_LARGE = Meaning(
    Action.FAIL, _MESSAGE, "3.4", None,
    "SES takes 10 MB (10485760 octets) a message by the v1 API and 40 MB by v2 (`api: auto`): send a link, or route large mail "
    "elsewhere.",
)  # fmt: skip
BAD_HEADER = Meaning(Action.FAIL, _MESSAGE, "6.0", None, "The application wrote a message that SES does not take.")
DUPLICATE = Meaning(Action.REPAIR, _MESSAGE, "6.0", None, "The application wrote a header twice that may stand once.")
BAD_ADDRESS = Meaning(Action.SPLIT, _RECIPIENT, "1.3", None, "SES does not take this form of address.")
BAD_ADDRESS_WITHIN = Meaning(
    Action.FAIL, _MESSAGE, "6.0", None,
    "The recipients are not to blame: SES does not take an address in the header (From, Sender, Reply-To, To or Cc). Let the "
    "application write that one in full.",
)  # fmt: skip
UNWANTED = Meaning(Action.SPLIT, _RECIPIENT, "7.1", None, "SES has this address on a list of those that it sends nothing to.")
UNKNOWN = Meaning(
    Action.DEFER, _MESSAGE, "0.0", None, "This answer is not known here; it is taken for temporary, and max_age ends it."
)  # fmt: skip
AMBIGUOUS = Meaning(
    Action.DEFER, _MESSAGE, "4.2", None,
    "The answer was lost, so SES may have sent it: look for it in the events of your configuration set.",
)  # fmt: skip

ASKED_AGAIN = "it is asked again by itself; the error says what is in the way"

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

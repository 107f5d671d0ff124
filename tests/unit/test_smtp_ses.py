"""What the texts of SES's SMTP endpoint mean."""

from __future__ import annotations

import pytest

from batches import batch
from sesrelay.mail.outcome import NO_TRAIL, Deferred, Failed, Outcome, PauseReason, Scope
from sesrelay.policy.ses_hosts import is_ses
from sesrelay.transport.client.answers import Answer, Stage, from_relay
from sesrelay.transport.client.connect import parse_reply
from sesrelay.transport.smtp.ses_answers import about_an_address, from_ses, of_form

UNVERIFIED = "Message rejected: Email address is not verified. The following identities failed the check in region US-EAST-1: "


def outcomes(code: int, text: str, *recipients: str, sender: str = "a@example.com") -> list[Outcome | None]:
    answer = Answer(Stage.DOT, parse_reply(code, text))
    return [from_ses(answer, delivery, NO_TRAIL) for delivery in batch(*recipients, sender=sender).deliveries]


@pytest.mark.parametrize(
    ("code", "text", "scope", "reason"),
    [
        (454, "Throttling failure: Maximum sending rate exceeded.", Scope.NEXTHOP, PauseReason.THROTTLED),
        (454, "Throttling failure: Daily message quota exceeded.", Scope.NEXTHOP, PauseReason.QUOTA),
        (554, "Message rejected: Sending suspended for this account.", Scope.NEXTHOP, PauseReason.SUSPENDED),
        (554, "Message rejected: Sending paused for this account.", Scope.NEXTHOP, PauseReason.SUSPENDED),
        (554, "Message rejected: Sending paused for configuration set main.", Scope.TRANSPORT, PauseReason.SUSPENDED),
        (554, "Transaction failed: Configuration set does not exist: main", Scope.TRANSPORT, PauseReason.CONFIGURATION),
        (554, "Access denied: User `arn:aws:iam::1:user/x' is not authorized to perform `ses:SendRawEmail' on resource "
              "`arn:aws:ses:us-east-1:1:identity/example.com'", Scope.SENDER_DOMAIN, PauseReason.CREDENTIALS),
        (554, "Access denied: User `arn:aws:iam::1:user/x' is not authorized to perform `ses:SendRawEmail'",
              Scope.NEXTHOP, PauseReason.CREDENTIALS),
        (454, "Throttling failure: Maximum SigV2 SMTP sending rate exceeded.", Scope.NEXTHOP, PauseReason.THROTTLED),
        (451, "Temporary service failure", Scope.NEXTHOP, PauseReason.UNAVAILABLE),
        (454, "Temporary authentication failure", Scope.NEXTHOP, PauseReason.UNAVAILABLE),
        (554, "Message rejected: Sending paused for this account. For more information, please check the inbox of the email address "
              "associated with your AWS account.", Scope.NEXTHOP, PauseReason.SUSPENDED),
        (554, UNVERIFIED + "a@example.com, c@example.com...", Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION),
        (454, "Throttling failure: Daily sending quota exceeded.", Scope.NEXTHOP, PauseReason.QUOTA),
        (554, "Message rejected: Account is suspended", Scope.NEXTHOP, PauseReason.SUSPENDED),
        (554, "Transaction failed: Tenant t is not associated", Scope.TRANSPORT, PauseReason.CONFIGURATION),
        (554, "Message rejected: Sending is disabled for tenant t1.", Scope.TRANSPORT, PauseReason.SUSPENDED),
        (554, "Message rejected: MAIL FROM domain is not verified", Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION),
        (554, UNVERIFIED + "a@example.com", Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION),
        (554, UNVERIFIED + "a@example.com, b@example.org", Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION),
        (554, "Message rejected: Email address is not verified.", Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_account_or_the_sender_pauses(code: int, text: str, scope: Scope, reason: PauseReason) -> None:
    (outcome,) = outcomes(code, text, "b@example.org")
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason, outcome.ambiguous) == (scope, reason, False)


@pytest.mark.parametrize(
    "text",
    [
        "Missing final '@domain'", "Missing domain", "Missing local name", "Extra route-addr", "Illegal address", "Invalid email address",
        "Local address contains control or whitespace", "Local address contains illegal character", "Domain contains illegal character",
        "Domain contains control or whitespace", "Domain ends with dot", "User name is missing: 'AKIAIOSFODNN7EXAMPLE'.",
        "Address contains illegal characters in user name: '<\"re:ceiver\"@example.org>'.", "Recipient count exceeds 50.",
    ],
)  # fmt: skip
def test_texts_about_an_address_are_told(text: str) -> None:
    refused = from_relay(Answer(Stage.DOT, parse_reply(554, f"Transaction failed: {text}")), "ses", NO_TRAIL)
    assert isinstance(refused, Failed)
    assert about_an_address(refused)
    assert of_form(refused)


@pytest.mark.parametrize(
    "text",
    [
        "Transaction failed: Duplicate header 'Content-Type'.", "Transaction failed: Expected '/', got ;",
        "Transaction failed: Expected disposition, got =", "Transaction failed: Expected ';', got \"address\"",
        "Transaction failed: Invalid header value 'an address'.", "Transaction failed: something new",
        "Message rejected: an attachment has an address of malware in it",
    ],
)  # fmt: skip
def test_texts_about_the_message_are_told_from_them(text: str) -> None:
    refused = from_relay(Answer(Stage.DOT, parse_reply(554, text)), "ses", NO_TRAIL)
    assert isinstance(refused, Failed)
    assert not about_an_address(refused)


def test_an_account_that_is_not_signed_up_is_told_from_a_wrong_password() -> None:
    (delivery,) = batch("b@example.org").deliveries
    outcome = from_ses(Answer(Stage.AUTH, parse_reply(535, "Account not subscribed to SES")), delivery, NO_TRAIL)
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason) == (Scope.NEXTHOP, PauseReason.CREDENTIALS)
    assert "not signed up" in outcome.remedy


@pytest.mark.parametrize(
    "address", ["tenant@x.example", "account@disabled.example", "throttling@x.example", "no-reply@paused-account.example"]
)
def test_an_address_that_is_repeated_chooses_no_meaning(address: str) -> None:
    (waiting,) = outcomes(554, UNVERIFIED + address, "b@example.org", sender=address)
    assert isinstance(waiting, Deferred)
    assert (waiting.scope, waiting.reason) == (Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION)
    (failed,) = outcomes(554, UNVERIFIED + address, address)
    assert isinstance(failed, Failed)
    assert outcomes(554, f"Transaction failed: Illegal address '{address}'", "b@example.org") == [None]


def test_the_name_of_an_iam_user_chooses_no_meaning() -> None:
    text = "Access denied: User `arn:aws:iam::1:user/tenant-x' is not authorized to perform `ses:SendRawEmail' on resource `{}'"
    (outcome,) = outcomes(554, text.format("arn:aws:ses:us-east-1:1:identity/example.com"), "b@example.org")
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason) == (Scope.SENDER_DOMAIN, PauseReason.CREDENTIALS)


def test_a_login_that_is_refused_says_what_smtp_credentials_are() -> None:
    (delivery,) = batch("b@example.org").deliveries
    outcome = from_ses(Answer(Stage.AUTH, parse_reply(535, "Authentication Credentials Invalid")), delivery, NO_TRAIL)
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason) == (Scope.NEXTHOP, PauseReason.CREDENTIALS)
    assert "SMTP credentials" in outcome.remedy


def test_the_remedy_names_the_sender() -> None:
    (outcome,) = outcomes(554, UNVERIFIED + "a@example.com", "b@example.org")
    assert isinstance(outcome, Deferred)
    assert "`sesrelay domain add example.com --region us-east-1`" in outcome.remedy


def test_in_the_sandbox_the_recipients_that_are_named_fail_and_the_others_are_tried_again() -> None:
    named, other = outcomes(554, UNVERIFIED + "B@example.org", "b@example.org", "c@example.org")
    assert isinstance(named, Failed)
    assert named.scope is Scope.RECIPIENT
    assert "`sesrelay account request-production`" in named.remedy
    assert isinstance(other, Deferred)
    assert other.scope is Scope.MESSAGE


def test_in_the_sandbox_a_recipient_of_an_internationalised_domain_is_found() -> None:
    named, other = outcomes(554, UNVERIFIED + "b@xn--bcher-kva.example", "B@Bücher.example", "c@example.org")
    assert isinstance(named, Failed)
    assert isinstance(other, Deferred)


def test_in_the_sandbox_a_recipient_with_a_quoted_local_part_is_found() -> None:
    named, other = outcomes(554, UNVERIFIED + '"a: b"@example.org', '"a: b"@example.org', "c@example.org")
    assert isinstance(named, Failed)
    assert named.scope is Scope.RECIPIENT
    assert isinstance(other, Deferred)
    assert other.scope is Scope.MESSAGE


@pytest.mark.parametrize("text", ["Transaction failed: Duplicate header 'From'.", "Message rejected: content", "Invalid MAIL FROM"])
def test_other_texts_are_left_to_the_code(text: str) -> None:
    assert outcomes(554, text, "b@example.org") == [None]


@pytest.mark.parametrize(
    ("host", "yes"),
    [
        ("email-smtp.us-east-1.amazonaws.com", True),
        ("EMAIL-SMTP.eu-west-1.amazonaws.com.", True),
        ("email-smtp-fips.us-east-1.amazonaws.com", True),
        ("email-smtp.us-east-1.amazonaws.com.evil.org", False),
        ("smtp.example.com", False),
    ],
)
def test_which_hosts_are_ses(host: str, yes: bool) -> None:
    assert is_ses(host) is yes

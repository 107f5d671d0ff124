"""What an answer means, by who gave it, at which stage, and its first digit: the whole table."""

from __future__ import annotations

import pytest

from sesrelay.mail.outcome import NO_TRAIL, Deferred, Delivered, Failed, Outcome, PauseReason, Scope, Trail
from sesrelay.mail.reply import Reply
from sesrelay.transport.client.answers import Answer, Stage, agree, from_mail_host, from_relay, most_telling, remote_id
from sesrelay.transport.client.connect import parse_reply

NEXTHOP, DOMAIN, MESSAGE, RECIPIENT = Scope.NEXTHOP, Scope.RECIPIENT_DOMAIN, Scope.MESSAGE, Scope.RECIPIENT
UNAVAILABLE, CREDENTIALS, CONFIGURATION = PauseReason.UNAVAILABLE, PauseReason.CREDENTIALS, PauseReason.CONFIGURATION


def short(outcome: Outcome) -> tuple[object, ...]:
    if isinstance(outcome, Deferred):
        return ("deferred", outcome.scope, outcome.reason, *(["ambiguous"] if outcome.ambiguous else []))
    if isinstance(outcome, Failed):
        return ("failed", outcome.scope)
    return (type(outcome).__name__.lower(),)


# stage, reply code or LOST: what it means from a relay; from a recipient domain's own host
LOST = 0
TABLE = [
    (Stage.CONNECT, LOST, ("deferred", NEXTHOP, UNAVAILABLE), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.GREETING, 421, ("deferred", NEXTHOP, UNAVAILABLE), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.GREETING, 450, ("deferred", NEXTHOP, UNAVAILABLE), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.GREETING, 554, ("deferred", NEXTHOP, CONFIGURATION), ("failed", DOMAIN)),
    (Stage.HELLO, LOST, ("deferred", NEXTHOP, UNAVAILABLE), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.HELLO, 451, ("deferred", NEXTHOP, UNAVAILABLE), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.HELLO, 550, ("deferred", NEXTHOP, CONFIGURATION), ("failed", DOMAIN)),
    (Stage.TLS, LOST, ("deferred", NEXTHOP, UNAVAILABLE), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.AUTH, 535, ("deferred", NEXTHOP, CREDENTIALS), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.AUTH, 504, ("deferred", NEXTHOP, CREDENTIALS), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.AUTH, 454, ("deferred", NEXTHOP, UNAVAILABLE), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.AUTH, LOST, ("deferred", NEXTHOP, UNAVAILABLE), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.MAIL, LOST, ("deferred", NEXTHOP, UNAVAILABLE), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.MAIL, 421, ("deferred", NEXTHOP, UNAVAILABLE), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.MAIL, 451, ("deferred", MESSAGE, None), ("deferred", MESSAGE, None)),
    (Stage.MAIL, 530, ("deferred", NEXTHOP, CREDENTIALS), ("failed", MESSAGE)),
    (Stage.MAIL, 550, ("failed", MESSAGE), ("failed", MESSAGE)),
    (Stage.RCPT, LOST, ("deferred", NEXTHOP, UNAVAILABLE), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.RCPT, 421, ("deferred", NEXTHOP, UNAVAILABLE), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.RCPT, 450, ("deferred", RECIPIENT, None), ("deferred", RECIPIENT, None)),
    (Stage.RCPT, 550, ("failed", RECIPIENT), ("failed", RECIPIENT)),
    (Stage.RCPT, 530, ("deferred", NEXTHOP, CREDENTIALS), ("failed", RECIPIENT)),
    (Stage.DATA, LOST, ("deferred", NEXTHOP, UNAVAILABLE), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.DATA, 451, ("deferred", MESSAGE, None), ("deferred", MESSAGE, None)),
    (Stage.DATA, 554, ("failed", MESSAGE), ("failed", MESSAGE)),
    (Stage.CONTENT, LOST, ("deferred", MESSAGE, None), ("deferred", MESSAGE, None)),
    (Stage.CONTENT, 552, ("failed", MESSAGE), ("failed", MESSAGE)),
    (Stage.DOT, LOST, ("deferred", MESSAGE, None, "ambiguous"), ("deferred", MESSAGE, None, "ambiguous")),
    (Stage.DOT, 421, ("deferred", NEXTHOP, UNAVAILABLE), ("deferred", DOMAIN, UNAVAILABLE)),
    (Stage.DOT, 452, ("deferred", MESSAGE, None), ("deferred", MESSAGE, None)),
    (Stage.DOT, 554, ("failed", MESSAGE), ("failed", MESSAGE)),
    (Stage.DOT, 250, ("delivered",), ("delivered",)),
]


@pytest.mark.parametrize(("stage", "code", "relay", "mail_host"), TABLE)
def test_what_an_answer_means(stage: Stage, code: int, relay: object, mail_host: object) -> None:
    answer = Answer(stage, Reply(code or 451, "", "because"), lost=code == LOST)
    assert short(from_relay(answer, "relay.test", NO_TRAIL)) == relay
    assert short(from_mail_host(answer, NO_TRAIL)) == mail_host


def test_no_relay_fails_mail_for_how_it_treats_us() -> None:
    for stage in (Stage.CONNECT, Stage.GREETING, Stage.HELLO, Stage.TLS, Stage.AUTH):
        for code in range(400, 600):
            outcome = from_relay(Answer(stage, Reply(code, "", "no")), "relay.test", NO_TRAIL)
            assert isinstance(outcome, Deferred)
            assert outcome.scope is Scope.NEXTHOP


def test_a_relay_that_wants_tls_first_is_a_matter_of_configuration() -> None:
    answer = Answer(Stage.MAIL, Reply(530, "5.7.0", "Must issue a STARTTLS command first"))
    outcome = from_relay(answer, "relay.test", NO_TRAIL)
    assert isinstance(outcome, Deferred)
    assert outcome.reason is PauseReason.CONFIGURATION
    assert "tls: required" in outcome.remedy


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ok: queued as 4XyZ12", "4XyZ12"),
        ("2.0.0 Ok: queued as 0A1B2C3D4E", "0A1B2C3D4E"),
        ("OK id=1tABCd-000123-Ab", "1tABCd-000123-Ab"),
        ("Ok 010001900a1b2c3d-11111111-2222-3333-4444-555555555555-000000", "010001900a1b2c3d-11111111-2222-3333-4444-555555555555-000000"),
        ("OK", None),
        ("Ok thanks", None),
        ("Message accepted for delivery", None),
    ],
)  # fmt: skip
def test_the_remote_id(text: str, found: str | None) -> None:
    assert remote_id(parse_reply(250, text)) == found


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT])
def test_a_mail_host_that_wants_tls_first_refuses_nothing(stage: Stage) -> None:
    answer = Answer(stage, Reply(530, "5.7.0", "Must issue a STARTTLS command first"))
    outcome = from_mail_host(answer, NO_TRAIL)
    assert short(outcome) == ("deferred", DOMAIN, UNAVAILABLE)
    assert isinstance(outcome, Deferred)
    assert "tls_policy" in outcome.remedy
    assert short(from_mail_host(answer, Trail("TLSv1.3 TLS_AES_256_GCM_SHA384")))[0] == "failed"


def test_several_hosts_fail_mail_only_together() -> None:
    reply = Reply(554, "5.7.1", "no")
    failed = Failed(reply, Scope.RECIPIENT_DOMAIN)
    down = Deferred(reply, Scope.RECIPIENT_DOMAIN, PauseReason.UNAVAILABLE)
    later = Deferred(reply, Scope.MESSAGE)
    assert agree([failed, failed]) is failed
    assert agree([failed, down]) is down
    assert agree([down, later, failed]) is later


def test_of_several_relays_the_operator_reads_what_can_be_mended() -> None:
    reply = Reply(451, "", "no")
    down = Deferred(reply, Scope.NEXTHOP, PauseReason.UNAVAILABLE)
    login = Deferred(reply, Scope.NEXTHOP, PauseReason.CREDENTIALS)
    assert most_telling([down, login]) is login
    assert most_telling([down]) is down


def test_delivered_tells_whether_the_duty_to_report_went_along() -> None:
    answer = Answer(Stage.DOT, Reply(250, "2.0.0", "Ok"))
    outcome = from_relay(answer, "relay.test", NO_TRAIL, dsn_passed_on=True)
    assert isinstance(outcome, Delivered)
    assert outcome.dsn_passed_on


def test_a_reply_of_many_lines_and_odd_octets_becomes_one_readable_line() -> None:
    reply = parse_reply(550, "5.7.1 Blocked\n5.7.1 see \udce9 https://x.test\x1b[31m")
    assert str(reply) == "550 5.7.1 Blocked see � https://x.test [31m"

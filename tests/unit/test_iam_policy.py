"""The policy that `sesrelay iam-policy` prints, judged as IAM judges it: what the relay does is allowed, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aws_world import sesrelay
from iam_evaluator import allowed
from sesrelay.aws.policy import MANAGE, RAW, READ, Sending, compact, document

ME, OTHER = "123456789012", "210987654321"
CONFIG = """\
hostname: relay.example.net
transports:
  main: {type: ses, region: us-east-1, configuration_set: events}
  old: {type: ses, region: eu-west-1, api: v1}
  china: {type: ses, region: cn-north-1, source_arn: 'arn:aws-cn:ses:cn-north-1:210987654321:identity/partner.example'}
  mailer: {type: smtp, host: email-smtp.ap-south-1.amazonaws.com, username: AKIAX, password: p}
  other: {type: smtp, host: mail.example.net}
routes:
  - {sender: example.com, transport: main}
  - {sender: '*.shop.example', transport: [main, direct]}
  - {sender: 'alerts@münchen.example', transport: old}
  - {sender: china.example, transport: china}
  - {sender: smtp.example, transport: mailer}
  - {sender: plain.example, transport: other}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    file.chmod(0o640)
    return file


def identity(name: str, region: str = "us-east-1", account: str = ME, partition: str = "aws") -> str:
    return f"arn:{partition}:ses:{region}:{account}:identity/{name}"


def may(policy: Any, action: str, resource: str, sender: str | None = None) -> bool:
    return allowed([policy], action, resource, {} if sender is None else {"ses:FromAddress": sender})


def test_what_the_routes_send_is_allowed_and_nothing_else(config: Path) -> None:
    done = sesrelay("iam-policy", "--config", config, "--account-id", ME)
    assert (done.code, done.err) == (0, "")
    policy = done.json
    raw, v2 = "ses:SendRawEmail", "ses:SendEmail"
    for action in (raw, v2):  # api: auto needs both names
        assert may(policy, action, identity("example.com"), "news@example.com")
        assert may(policy, action, "arn:aws:ses:us-east-1:123456789012:configuration-set/events", "news@example.com")
        assert may(policy, action, identity("shop.example"), "a@x.shop.example")
        assert may(policy, action, identity("x.shop.example"), "a@x.shop.example")
        assert not may(policy, action, identity("shop.example"), "a@shop.example")  # *.domain: sub-domains only
        assert not may(policy, action, identity("example.com"), "news@example.org")
        assert not may(policy, action, identity("example.com"), "news@example.com.evil.example")
        assert not may(policy, action, identity("example.com"), "news@notexample.com")
        assert not may(policy, action, identity("example.com"))
        assert not may(policy, action, identity("plain.example"), "a@plain.example")
        assert not may(policy, action, identity("example.com", account=OTHER), "news@example.com")
        assert not may(policy, action, identity("example.com", "eu-west-1"), "news@example.com")
    old = identity("xn--mnchen-3ya.example", "eu-west-1")
    assert may(policy, raw, old, "alerts@xn--mnchen-3ya.example")
    assert not may(policy, v2, old, "alerts@xn--mnchen-3ya.example")  # api: v1
    assert not may(policy, raw, old, "other@xn--mnchen-3ya.example")
    china = identity("china.example", "cn-north-1", partition="aws-cn")
    assert may(policy, raw, china, "a@china.example")
    assert may(policy, raw, identity("partner.example", "cn-north-1", OTHER, "aws-cn"), "a@china.example")
    assert may(policy, raw, identity("smtp.example", "ap-south-1"), "a@smtp.example")
    assert not may(policy, v2, identity("smtp.example", "ap-south-1"), "a@smtp.example")
    for action in READ:
        assert may(policy, action, "*")
    for action in (*MANAGE, "ses:PutAccountDetails", "ses:ListEmailIdentities", "iam:CreateUser", "ses:SendTemplatedEmail"):
        assert not may(policy, action, identity("example.com"), "news@example.com"), action


def test_a_verified_parent_may_vouch_for_a_sub_domain() -> None:
    policy = document([Sending("us-east-1", ("ses:SendRawEmail",), ("blog.example.com",))], ME)
    assert may(policy, "ses:SendRawEmail", identity("example.com"), "a@blog.example.com")
    assert not may(policy, "ses:SendRawEmail", identity("example.com"), "a@example.com")
    assert not may(policy, "ses:SendRawEmail", identity("com"), "a@blog.example.com")


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("us-east-1", "aws"),
        ("eusc-de-east-1", "aws-eusc"),
        ("us-gov-west-1", "aws-us-gov"),
        ("cn-northwest-1", "aws-cn"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
        ("eu-mars-7", "aws"),  # newer than botocore
        ("*", "aws"),
    ],
)
def test_resources_are_of_their_regions_partition(region: str, partition: str) -> None:
    policy = document([Sending(region, ("ses:SendRawEmail",), ("example.com",), configuration_sets=("events",))], ME)
    assert policy["Statement"][0]["Resource"] == [
        f"arn:{partition}:ses:{region}:{ME}:identity/example.com",
        f"arn:{partition}:ses:{region}:{ME}:configuration-set/events",
    ]


def test_manage_adds_the_identities_of_the_routes_only(config: Path) -> None:
    policy = sesrelay("iam-policy", "--manage", "--config", config, "--account-id", ME).json
    for action in MANAGE:
        assert may(policy, action, identity("example.com"))
        assert not may(policy, action, identity("example.org"))
        assert not may(policy, action, identity("plain.example"))
    assert may(policy, "ses:ListEmailIdentities", "*")
    assert not may(policy, "ses:PutAccountDetails", "*")
    assert not may(policy, "ses:SendRawEmail", identity("example.com"), "news@example.org")


def test_who_manages_a_sub_domain_may_look_what_vouches_for_it() -> None:
    sending = Sending("us-east-1", (RAW,), ("news.example.com", "mail.news.example.com"))
    policy = document([sending], ME, manage=True)
    assert may(policy, "ses:GetEmailIdentity", identity("example.com")), "doctor asks there, where news.example.com is not verified"
    for action in MANAGE:
        assert may(policy, action, identity("news.example.com"))
        assert may(policy, action, identity("example.com")) == (action == "ses:GetEmailIdentity")
    assert not may(document([sending], ME), "ses:GetEmailIdentity", identity("example.com"))


def test_who_looks_for_verified_senders_may_list_them(config: Path) -> None:
    text = config.read_text()
    for more in ("preflight: true", "rewrite_from: mail@example.com"):
        config.write_text(text.replace("configuration_set: events", f"configuration_set: events, {more}"))
        policy = sesrelay("iam-policy", "--config", config).json
        assert may(policy, "ses:ListEmailIdentities", "*")
        assert not may(policy, "ses:DeleteEmailIdentity", identity("example.com"))


def test_whoever_is_rewritten_may_be_sent_as(config: Path) -> None:
    text = config.read_text()
    config.write_text(text.replace("configuration_set: events", "configuration_set: events, rewrite_from: Post@Verified.example"))
    for options in ((), ("--domain", "new.example")):
        policy = sesrelay("iam-policy", "--config", config, "--account-id", ME, *options).json
        assert may(policy, "ses:SendRawEmail", identity("verified.example"), "Post@verified.example")
        assert not may(policy, "ses:SendRawEmail", identity("verified.example"), "other@verified.example")


def test_domains_and_transports_by_name(config: Path) -> None:
    policy = sesrelay("iam-policy", "--config", config, "--domain", "New.Example", "--account-id", ME, "--transport", "main").json
    assert may(policy, "ses:SendEmail", identity("new.example"), "a@new.example")
    assert not may(policy, "ses:SendEmail", identity("example.com"), "a@example.com")
    policy = sesrelay("iam-policy", "--config", config, "--transport", "old").json
    assert may(policy, "ses:SendRawEmail", identity("xn--mnchen-3ya.example", "eu-west-1"), "alerts@xn--mnchen-3ya.example")
    assert not may(policy, "ses:SendRawEmail", identity("example.com"), "a@example.com")
    assert sesrelay("iam-policy", "--config", config, "--transport", "other").code == 64


def test_a_default_route_to_ses_binds_nobody_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("transports: {s: {type: ses, region: us-east-1}}\ndefault_route: {transport: s}\n")
    done = sesrelay("iam-policy", "--config", file, "--account-id", ME)
    assert "any sender is allowed" in done.err
    assert may(done.json, "ses:SendRawEmail", identity("whatever.example"), "a@whatever.example")
    bound = sesrelay("iam-policy", "--config", file, "--domain", "example.com", "--account-id", ME)
    assert not bound.err
    assert not may(bound.json, "ses:SendRawEmail", identity("whatever.example"), "a@whatever.example")


def test_without_a_configuration_or_a_route(tmp_path: Path) -> None:
    policy = sesrelay("iam-policy", "--domain", "example.com").json
    assert may(policy, "ses:SendRawEmail", identity("example.com"), "a@example.com")
    assert sesrelay("iam-policy").code == 64
    file = tmp_path / "c.yaml"
    file.write_text("{}\n")
    assert sesrelay("iam-policy", "--config", file).code == 1
    assert sesrelay("iam-policy", "--config", file, "--account-id", "12").code == 64
    assert sesrelay("iam-policy", "--config", tmp_path / "none.yaml").code == 78


def test_the_evaluator_itself() -> None:
    allow = {"Effect": "Allow", "Action": "s3:Get*", "Resource": "arn:aws:s3:::b/*"}
    deny = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"ForAnyValue:StringLike": {"aws:TagKeys": "x*"}}}
    policy = {"Version": "2012-10-17", "Statement": [allow, deny]}
    assert allowed([policy], "S3:getObject", "arn:aws:s3:::b/key")
    assert not allowed([policy], "s3:GetObject", "arn:aws:s3:::c/key")
    assert not allowed([policy], "s3:GetObject", "arn:aws:s3:::b/key", {"aws:TagKeys": ["a", "xy"]})
    assert allowed([policy], "s3:GetObject", "arn:aws:s3:::b/key", {"aws:TagKeys": ["a"]})
    with pytest.raises(ValueError, match="ARN"):
        allowed([{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "b"}}], "a:b", "c")


def test_a_policy_counts_without_white_space() -> None:
    policy = document([Sending("us-east-1", ("ses:SendRawEmail",), tuple(f"d{n}.example" for n in range(100)))], ME)
    assert " " not in compact(policy)


@pytest.mark.parametrize("verb", [("iam-policy",), ("credentials", "create"), ("account",), ("domain", "show", "example.com")])
def test_a_region_that_is_none_is_a_wrong_command_line(verb: tuple[str, ...]) -> None:
    said = sesrelay(*verb, "--region", "us_east_1")
    assert (said.code, "'--region': must be an AWS region" in said.err) == (64, True), said.err

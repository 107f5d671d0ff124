"""The SMTP password of a secret key: AWS's algorithm by its published vector, and what is no secret key."""

from __future__ import annotations

import pytest

from aws_world import sesrelay
from sesrelay.aws.smtp_password import NoSecretKey, derive, is_smtp_password, read_secret
from sesrelay.config.values import parse_region

VECTOR = ("some+secret+key", "eu-central-1", "BMXhUYlu5Z3gSXVQORxlVa7XPaz91aGWdfHxvkOZdWZ2")


def test_the_published_vector() -> None:
    secret, region, password = VECTOR
    assert derive(secret, region) == password
    assert derive(secret, "us-east-1") != password
    assert is_smtp_password(password)


def test_the_verb_reads_stdin_and_prints_only_the_password() -> None:
    done = sesrelay("smtp-password", "--region", VECTOR[1], stdin=VECTOR[0] + "\r\n")
    assert (done.code, done.out, done.err) == (0, VECTOR[2] + "\n", "")


@pytest.mark.parametrize("region", ["us-east-10", "us-gov-west-1", "eusc-de-east-1"])
def test_each_region_that_the_configuration_takes_is_taken(region: str) -> None:
    done = sesrelay("smtp-password", "--region", region, stdin=VECTOR[0])
    assert (done.code, done.out) == (0, derive(VECTOR[0], parse_region(region)) + "\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("AKIAIOSFODNN7EXAMPLE", "access key ID"),
        ("ASIAIOSFODNN7EXAMPLE", "temporary"),
        ("aws_secret_access_key = abc\naws_session_token = xyz\n", "temporary"),
        ("x" * 400, "temporary"),
        (VECTOR[2], "already an SMTP password"),
        ("two words", "spaces"),
        ("two\nlines", "one line"),
    ],
)
def test_what_is_no_secret_key_is_said_and_never_shown(text: str, why: str) -> None:
    done = sesrelay("smtp-password", "--region", "us-east-1", stdin=text)
    assert (done.code, done.out) == (1, "")
    assert why in done.err
    assert not text or text not in done.err


def test_the_secret_of_a_session_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    assert sesrelay("smtp-password", "--region", "us-east-1", stdin="canary").code == 1
    assert sesrelay("smtp-password", "--region", "us-east-1", stdin="another").code == 0
    with pytest.raises(NoSecretKey):
        read_secret("canary", "canary")


@pytest.mark.parametrize("args", [[], ["--region", "Frankfurt"], ["--region", "us-east-1", "a-secret"]])
def test_a_wrong_command_line(args: list[str]) -> None:
    assert sesrelay("smtp-password", *args, stdin="s").code == 64

"""The request: its form decodes to what was meant, and its signature is botocore's."""

from __future__ import annotations

import base64
import logging
from datetime import UTC, datetime
from hashlib import sha256
from unittest.mock import patch
from urllib.parse import parse_qsl

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from ses_world import At, Keys
from sesrelay.testing import sigv4
from sesrelay.transport.ses import call
from sesrelay.transport.ses.seam import SesOptions
from sesrelay.transport.ses.sign import CONTENT_TYPE, Signer


@pytest.mark.parametrize(
    "url",
    [
        "https://email.us-east-1.amazonaws.com", "https://email.eu-west-1.amazonaws.com/", "http://127.0.0.1:4579",
        "https://ses.internal:443/a%20b/c", "http://[::1]:8080/x", "https://EMAIL.example.com:8443/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("token", [None, "token/+="])
def test_signatures_equal_botocores(url: str, token: str | None) -> None:
    body = b"Action=SendRawEmail&x=%2B"
    now = datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)
    keys = Keys("AKIAEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token)
    ours = Signer(At(url, "eu-west-1")).headers(sha256(body).hexdigest(), keys, now.timestamp())
    request = AWSRequest("POST", url, {"Content-Type": CONTENT_TYPE}, body)
    with patch("botocore.auth.get_current_datetime", lambda: now.replace(tzinfo=None)):
        SigV4Auth(Credentials(keys.access_key, keys.secret_key, token), "ses", "eu-west-1").add_auth(request)
    assert {name.lower(): value for name, value in ours.items() if name != "Host"} == {
        name.lower(): value for name, value in request.headers.items()
    }


def test_a_signing_key_is_not_kept_for_another_day_or_secret() -> None:
    signer = Signer(At("http://127.0.0.1:1"))
    digest = sha256(b"").hexdigest()
    for keys, now in ((Keys(), 0.0), (Keys(), 86_400.0), (Keys(secret_key="other"), 86_400.0), (Keys(), 0.0)):
        fresh = Signer(At("http://127.0.0.1:1")).headers(digest, keys, now)
        assert signer.headers(digest, keys, now) == fresh


@given(st.binary(max_size=300))
async def test_data_decodes_to_what_was_encoded(raw: bytes) -> None:
    encoded = await call.encoded(raw)
    assert (
        dict(parse_qsl(f"d={encoded.decode()}", strict_parsing=True, keep_blank_values=True))["d"] == base64.b64encode(raw).decode()
    )


async def test_the_form_holds_each_parameter() -> None:
    options = SesOptions("us-east-1", configuration_set="a set", source_arn="arn:s", from_arn="arn:f", return_path_arn="arn:r")
    body = call.form(call.fixed_part(options), "a+b@c.d", ["x&y@z", "ü@z"], {"n": "v=1"}, await call.encoded(b"\xfb\xff"))
    assert dict(parse_qsl(body.decode("ascii"), strict_parsing=True)) == {
        "Action": "SendRawEmail", "Version": "2010-12-01", "ConfigurationSetName": "a set", "SourceArn": "arn:s",
        "FromArn": "arn:f", "ReturnPathArn": "arn:r", "Source": "a+b@c.d", "Destinations.member.1": "x&y@z",
        "Destinations.member.2": "ü@z", "Tags.member.1.Name": "n", "Tags.member.1.Value": "v=1", "RawMessage.Data": "+/8=",
    }  # fmt: skip


def test_the_stand_in_checks_signatures_as_aws_words_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    body, now = b"a=b", 1_800_000_000.0
    headers = Signer(At("http://127.0.0.1:1")).headers(sha256(body).hexdigest(), Keys(), now)
    known = {Keys().access_key: Keys().secret_key}
    lowered = {**headers, **{name.lower(): value for name, value in headers.items()}}
    assert sigv4.check("POST", "/", "", lowered, body, known, now) == Keys().access_key
    for change, code, word in (
        ({"body": b"a=c"}, "SignatureDoesNotMatch", "calculated"),
        ({"keys": {}}, "InvalidClientTokenId", "invalid"),
        ({"keys": {Keys().access_key: "other"}}, "SignatureDoesNotMatch", "calculated"),
        ({"now": now + 3600}, "SignatureDoesNotMatch", "expired"),
        ({"now": now - 3600}, "SignatureDoesNotMatch", "not yet current"),
        ({"headers": {}}, "MissingAuthenticationToken", "missing"),
    ):
        request = {"headers": lowered, "body": body, "keys": known, "now": now} | change
        with pytest.raises(sigv4.SignatureError) as caught:
            sigv4.check("POST", "/", "", **request)
        assert caught.value.code == code
        assert word in caught.value.text
    assert not caplog.text

"""The request: its form decodes to what was meant, and its signature is botocore's."""

from __future__ import annotations

import base64
import json
import logging
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qsl

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from ses_world import Keys
from sesrelay.testing import sigv4
from sesrelay.transport.ses import call
from sesrelay.transport.ses.body import PIECE, WHOLE, Body, measured
from sesrelay.transport.ses.seam import SesOptions
from sesrelay.transport.ses.sign import SigV4, SigV4a, private_key
from sesrelay.transport.ses.target import target

CONTENT_TYPE = call.CONTENT_TYPES["v1"]


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
    ours = SigV4(url, "eu-west-1", "ses", CONTENT_TYPE).headers(sha256(body).hexdigest(), keys, now.timestamp())
    request = AWSRequest("POST", url, {"Content-Type": CONTENT_TYPE}, body)
    with patch("botocore.auth.get_current_datetime", lambda: now.replace(tzinfo=None)):
        SigV4Auth(Credentials(keys.access_key, keys.secret_key, token), "ses", "eu-west-1").add_auth(request)
    assert {name.lower(): value for name, value in ours.items() if name != "Host"} == {
        name.lower(): value for name, value in request.headers.items()
    }


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://h\u00fc.test/x", "xn--h-eha.test"),
        ("https://SES.test:443", "ses.test"),
        ("https://ses.test:80", "ses.test:80"),
        ("http://ses.test:0", "ses.test"),
        ("http://[::1]:80", "[::1]"),
        ("https://user:secret@[::80]:8443/x", "[::80]:8443"),
    ],
)
def test_the_host_that_is_signed_is_the_one_that_is_connected_to(url: str, host: str) -> None:
    assert SigV4(url, "us-east-1", "ses", CONTENT_TYPE).host == host
    assert target(url).host.field == host


def test_a_signing_key_is_not_kept_for_another_day_or_secret() -> None:
    signer = SigV4("http://127.0.0.1:1", "us-east-1", "ses", CONTENT_TYPE)
    digest = sha256(b"").hexdigest()
    for keys, now in ((Keys(), 0.0), (Keys(), 86_400.0), (Keys(secret_key="other"), 86_400.0), (Keys(), 0.0)):
        fresh = SigV4("http://127.0.0.1:1", "us-east-1", "ses", CONTENT_TYPE).headers(digest, keys, now)
        assert signer.headers(digest, keys, now) == fresh


@given(st.binary(max_size=300))
async def test_data_decodes_to_what_was_encoded(raw: bytes) -> None:
    encoded = (await measured(Body(b"d=", raw, escaped=True))).whole
    assert encoded is not None
    assert dict(parse_qsl(encoded.decode(), strict_parsing=True, keep_blank_values=True))["d"] == base64.b64encode(raw).decode()


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, WHOLE, WHOLE + 1, WHOLE + PIECE + 2])
async def test_a_body_in_pieces_is_the_one_made_at_once(size: int, escaped: bool) -> None:
    body = Body(b"head", (b"\xfb\xff\xbe?>" * (size // 5 + 1))[:size], b"tail", escaped)
    found = await measured(body)
    whole = b"".join([piece async for piece in found.pieces()])
    assert whole == body.whole()
    assert (found.digest, found.size) == (sha256(whole).hexdigest(), len(whole))
    assert (found.whole is None) == (size > WHOLE)


def test_the_form_holds_each_parameter() -> None:
    options = SesOptions("us-east-1", configuration_set="a set", source_arn="arn:s", from_arn="arn:f", return_path_arn="arn:r")
    body = call.body("v1", call.fixed_part(options), "a+b@c.d", ["x&y@z", "ü@z"], {"n": "v=1"}, b"\xfb\xff")
    assert dict(parse_qsl(body.whole().decode("ascii"), strict_parsing=True)) == {
        "Action": "SendRawEmail", "Version": "2010-12-01", "ConfigurationSetName": "a set", "SourceArn": "arn:s",
        "FromArn": "arn:f", "ReturnPathArn": "arn:r", "Source": "a+b@c.d", "Destinations.member.1": "x&y@z",
        "Destinations.member.2": "ü@z", "Tags.member.1.Name": "n", "Tags.member.1.Value": "v=1", "RawMessage.Data": "+/8=",
    }  # fmt: skip


def test_the_json_holds_each_parameter() -> None:
    options = SesOptions(
        "us-east-1", configuration_set="a set", source_arn="arn:s", from_arn="arn:f", return_path_arn="arn:r", tenant="t",
        endpoint_id="e.id", contact_list="list", topic="news", feedback_forwarding="bounces@example.com",
    )  # fmt: skip
    body = call.body("v2", call.fixed_part(options), 'a"b@c.d', ["x&y@z", "ü@z"], {"n": "v=1"}, b"\xfb\xff")
    assert json.loads(body.whole()) == {
        "FromEmailAddress": 'a"b@c.d', "Destination": {"ToAddresses": ["x&y@z", "ü@z"]},
        "Content": {"Raw": {"Data": "+/8="}}, "EmailTags": [{"Name": "n", "Value": "v=1"}], "ConfigurationSetName": "a set",
        "FromEmailAddressIdentityArn": "arn:f", "FeedbackForwardingEmailAddressIdentityArn": "arn:r", "TenantName": "t",
        "EndpointId": "e.id", "FeedbackForwardingEmailAddress": "bounces@example.com",
        "ListManagementOptions": {"ContactListName": "list", "TopicName": "news"},
    }  # fmt: skip
    bare = call.body("v2", call.fixed_part(SesOptions("us-east-1", source_arn="arn:s")), "a@b", ["c@d"], {}, b"")
    assert json.loads(bare.whole()) == {
        "FromEmailAddress": "a@b", "Destination": {"ToAddresses": ["c@d"]}, "EmailTags": [],
        "FromEmailAddressIdentityArn": "arn:s", "Content": {"Raw": {"Data": ""}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "size", "api"),
    [
        ({}, 10_485_760, "v1"), ({}, 10_485_761, "v2"), ({}, 41_943_040, "v2"), ({}, 41_943_041, None),
        ({"api": "v1"}, 1, "v1"), ({"api": "v1"}, 10_485_761, None), ({"api": "v2"}, 1, "v2"),
        ({"tenant": "t"}, 1, "v2"), ({"endpoint_id": "e"}, 1, "v2"), ({"contact_list": "l"}, 1, "v2"),
        ({"feedback_forwarding": "a@b"}, 1, "v2"),
    ],
)  # fmt: skip
def test_which_api_a_message_takes(options: dict[str, Any], size: int, api: str | None) -> None:
    found = call.fitting(SesOptions("us-east-1", **options), size)
    assert found == api or (api is None and found == call.too_large(options.get("api", "auto"), size))


def test_the_key_pair_of_sigv4a_is_the_one_of_awss_own_test_vector() -> None:
    numbers = private_key("AKISORANDOMAASORANDOM", "q+jcrXGc+0zWN6uzclKVhvMmUsIfRPa4rlRandom").private_numbers()
    assert f"{numbers.private_value:064x}" == "7fd3bd010c0d9c292141c2b77bfbde1042c92e6836fff749d1269ec890fca1bd"
    assert f"{numbers.public_numbers.x:064x}" == "15d242ceebf8d8169fd6a8b5a746c41140414c3b07579038da06af89190fffcb"


def test_a_signature_for_several_regions_can_be_verified() -> None:
    url, keys = "https://abc.xyz.endpoints.email.amazonaws.com/v2/email/outbound-emails", Keys("AKIAEXAMPLE", "secret", "token/+=")
    headers = SigV4a(url, "*", "ses", "application/json").headers(sha256(b"{}").hexdigest(), keys, 0.0)
    assert headers["X-Amz-Region-Set"] == "*"
    names = "content-type;host;x-amz-date;x-amz-region-set;x-amz-security-token"
    start = f"AWS4-ECDSA-P256-SHA256 Credential=AKIAEXAMPLE/19700101/ses/aws4_request, SignedHeaders={names}, Signature="
    assert headers["Authorization"].startswith(start)
    canonical = (
        "POST\n/v2/email/outbound-emails\n\ncontent-type:application/json\nhost:abc.xyz.endpoints.email.amazonaws.com\n"
        f"x-amz-date:19700101T000000Z\nx-amz-region-set:*\nx-amz-security-token:token/+=\n\n{names}\n{sha256(b'{}').hexdigest()}"
    )
    text = "AWS4-ECDSA-P256-SHA256\n19700101T000000Z\n19700101/ses/aws4_request\n" + sha256(canonical.encode()).hexdigest()
    signature = bytes.fromhex(headers["Authorization"].removeprefix(start))
    private_key(keys.access_key, keys.secret_key).public_key().verify(signature, text.encode(), ECDSA(SHA256()))


def test_the_stand_in_checks_signatures_as_aws_words_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    body, now = b"a=b", 1_800_000_000.0

    def signed(region: str = "us-east-1", service: str = "ses") -> dict[str, str]:
        headers = SigV4("http://127.0.0.1:1", region, service, CONTENT_TYPE).headers(sha256(body).hexdigest(), Keys(), now)
        return {**headers, **{name.lower(): value for name, value in headers.items()}}

    known = {Keys().access_key: Keys().secret_key}
    assert sigv4.check("POST", "/", "", signed(), body, known, now, "us-east-1") == Keys().access_key
    assert sigv4.check("POST", "/", "", signed("eu-west-1"), body, known, now, "eu-west-1") == Keys().access_key
    for change, code, word in (
        ({"body": b"a=c"}, "SignatureDoesNotMatch", "calculated"),
        ({"keys": {}}, "InvalidClientTokenId", "invalid"),
        ({"keys": {Keys().access_key: "other"}}, "SignatureDoesNotMatch", "calculated"),
        ({"now": now + 3600}, "SignatureDoesNotMatch", "expired"),
        ({"now": now - 3600}, "SignatureDoesNotMatch", "not yet current"),
        ({"headers": {}}, "MissingAuthenticationToken", "missing"),
        ({"headers": signed("eu-west-1")}, "SignatureDoesNotMatch", "scoped to a valid region, not 'eu-west-1'."),
        ({"headers": signed(service="s3")}, "SignatureDoesNotMatch", "scoped to correct service: 'ses'."),
    ):
        request = {"headers": signed(), "body": body, "keys": known, "now": now, "here": "us-east-1"} | change
        with pytest.raises(sigv4.SignatureError) as caught:
            sigv4.check("POST", "/", "", **request)
        assert caught.value.code == code
        assert word in caught.value.text
    assert not caplog.text

"""The identities that an SES account has verified, as it says itself.

Source: Amazon SES API v2 ListEmailIdentities; API v1 ListIdentities and GetIdentityVerificationAttributes where v2 is missing
or the policy forbids it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sesrelay.mail.address import AddressError, domain_key, normalise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_ses import SESClient
    from mypy_boto3_sesv2 import SESV2Client

PAGE = 1000  # identities, the most that v2 gives at once
_V1_PAGE = 100
_GOOD = frozenset({"success", "temporaryfailure", "temporary_failure"})  # the latter still sends, while SES looks again


def fetch_identities(v2: SESV2Client, v1: SESClient) -> frozenset[str]:
    """Return the verified addresses and domains in normal form. Blocks.

    Raises: botocore's errors, those of v1 where neither answers.
    """
    from botocore.exceptions import ClientError  # noqa: PLC0415 - importing it costs 100 ms
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    try:
        return frozenset(_by_v2(v2))
    except (ClientError, ResponseParserError, KeyError):
        return frozenset(_by_v1(v1))


def _by_v2(v2: SESV2Client) -> Iterator[str]:
    more: dict[str, Any] = {}
    while True:
        answer = v2.list_email_identities(PageSize=PAGE, **more)
        for each in answer["EmailIdentities"]:
            status = str(each.get("VerificationStatus") or ("success" if each.get("SendingEnabled") else ""))
            if status.lower() in _GOOD:
                yield from _normal(str(each["IdentityName"]))
        if not answer.get("NextToken"):
            return
        more = {"NextToken": answer["NextToken"]}


def _by_v1(v1: SESClient) -> Iterator[str]:
    more: dict[str, Any] = {}
    while True:
        answer = v1.list_identities(MaxItems=_V1_PAGE, **more)
        names = list(answer["Identities"])
        if names:
            told = v1.get_identity_verification_attributes(Identities=names)["VerificationAttributes"]
            for name, attributes in told.items():
                if str(attributes["VerificationStatus"]).lower() in _GOOD:
                    yield from _normal(name)
        if not answer.get("NextToken"):
            return
        more = {"NextToken": answer["NextToken"]}


def _normal(name: str) -> Iterator[str]:
    try:
        yield normalise(name) if "@" in name else domain_key(name)
    except AddressError:
        return

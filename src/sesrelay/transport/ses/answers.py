"""Reading what came back for a call: an acceptance, a refusal, or nothing that can be told.

Invariant: an acceptance is a whole answer of status 200 with a MessageId in it; nothing else counts as one.

Source: Amazon SES API reference 2010-12-01, "Common errors"; AWS Query and REST-JSON protocols.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import unescape
from typing import Literal

from sesrelay.mail.value import value
from sesrelay.policy.ses_meaning import Refused

TEXT_MAX = 32_768  # characters of an answer that are read: a refusal may name 50 addresses

_ACCEPTED = re.compile(
    rb"\s*(?:<\?xml[^>]*\?>\s*)?<SendRawEmailResponse\b.*?"
    rb"<MessageId>\s*([\x21-\x3b\x3d-\x7e]+)\s*</MessageId>.*</SendRawEmailResponse>\s*\Z",
    re.S,
)
_ID = re.compile(r"[\x21-\x7e]+\Z")
_ERROR = re.compile(rb"\s*(?:<\?xml[^>]*\?>\s*)?<ErrorResponse\b.*?<Error>(.*?)</Error>.*</ErrorResponse>\s*\Z", re.S)
_CODE = re.compile(rb"<Code>\s*(.*?)\s*</Code>", re.S)
_MESSAGE = re.compile(rb"<Message>\s*(.*?)\s*</Message>", re.S)
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


@value(frozen=True, slots=True)
class Accepted:
    message_id: str


@value(frozen=True, slots=True)
class Unreadable:
    """The request was answered, but not in a way that tells whether the message was taken."""

    status: int
    why: str


def read(status: int, headers: Mapping[str, str], body: bytes, api: Literal["v1", "v2"] = "v1") -> Accepted | Refused | Unreadable:
    """Tell what an HTTP answer to a call of `api` means; `headers` by name in lower case."""
    if status == 200:
        return _accepted(body) if api == "v1" else _accepted_by_v2(body)
    error = _ERROR.match(body)
    if error:
        code, text = _CODE.search(error[1]), _MESSAGE.search(error[1])
        return Refused(status, _bare(_text(code[1])) if code else "", _text(text[1]) if text else "")
    refused = _json(status, headers, body)
    if refused is not None:
        return refused
    if status >= 500 or status in (408, 429):
        return Refused(status, "", "")
    return Unreadable(status, f"HTTP {status} with a body that is not from SES")


def _accepted(body: bytes) -> Accepted | Unreadable:
    found = _ACCEPTED.match(body)
    if found:
        return Accepted(found[1].decode("ascii"))
    missing = body.lstrip().startswith((b"<SendRawEmailResponse", b"<?xml")) and b"</SendRawEmailResponse>" in body
    return Unreadable(200, "the answer has no MessageId" if missing else "the answer is not from SES")


def _accepted_by_v2(body: bytes) -> Accepted | Unreadable:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return Unreadable(200, "the answer is not from SES")
    message_id = document.get("MessageId")
    if isinstance(message_id, str) and _ID.match(message_id):
        return Accepted(message_id)
    return Unreadable(200, "the answer has no MessageId")


def _json(status: int, headers: Mapping[str, str], body: bytes) -> Refused | None:
    try:
        document = json.loads(body) if body or status < 400 else {}  # the header alone may name the error
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    code = headers.get("x-amzn-errortype") or document.get("__type") or document.get("code")
    if not isinstance(code, str):
        return None
    text = document.get("message") or document.get("Message") or ""
    return Refused(status, _bare(code), _clean(str(text)))


def _bare(code: str) -> str:
    return code.partition(":")[0].rpartition("#")[2].strip().removesuffix("Exception")


def _text(value: bytes) -> str:
    return _clean(unescape(value.decode("utf-8", "replace")))


def _clean(text: str) -> str:
    return _BLANKS.sub(" ", text).strip()[:TEXT_MAX]

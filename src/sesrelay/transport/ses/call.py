"""One call as the body of its request: SendRawEmail of v1 as a form, SendEmail of v2 as JSON.

Both name every recipient beside the message, which is what decides to whom it goes, whatever its header says.

Source: Amazon SES API reference 2010-12-01, SendRawEmail; Amazon SES API v2 reference, SendEmail (Raw).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from sesrelay.mail.filed import Filed
from sesrelay.mail.outcome import Failed
from sesrelay.mail.reply import Reply
from sesrelay.policy import ses_meaning
from sesrelay.transport.ses.body import Body
from sesrelay.transport.ses.seam import SesOptions

Api = Literal["v1", "v2"]
V1_MAX = 10_485_760  # octets of one message, as the error text of SES has it
V2_MAX = 41_943_040
RECIPIENTS_MAX = 50  # destinations of one call
V2_PATH = "/v2/email/outbound-emails"
CONTENT_TYPES: Mapping[Api, str] = {"v1": "application/x-www-form-urlencoded; charset=utf-8", "v2": "application/json"}
_COMMON = re.compile(r"[A-Za-z0-9_.~@-]*\Z")


@dataclass(frozen=True, slots=True)
class Fixed:
    """What is the same in each call of a transport: a piece of the form, and the members of the JSON."""

    form: bytes
    members: Mapping[str, object]


def fixed_part(options: SesOptions) -> Fixed:
    pairs = [("Action", "SendRawEmail"), ("Version", "2010-12-01")]
    named = {
        "ConfigurationSetName": options.configuration_set,
        "SourceArn": options.source_arn,
        "FromArn": options.from_arn,
        "ReturnPathArn": options.return_path_arn,
    }
    pairs += [(name, value) for name, value in named.items() if value]
    members: dict[str, object] = {
        "ConfigurationSetName": options.configuration_set,
        # v2 knows one identity for both; where they differ it is the header From that a recipient sees.
        "FromEmailAddressIdentityArn": options.from_arn or options.source_arn,
        "FeedbackForwardingEmailAddressIdentityArn": options.return_path_arn,
        "FeedbackForwardingEmailAddress": options.feedback_forwarding,
        "TenantName": options.tenant,
        "EndpointId": options.endpoint_id,
    }
    if options.contact_list:
        lists = {"ContactListName": options.contact_list, "TopicName": options.topic}
        members["ListManagementOptions"] = {name: value for name, value in lists.items() if value}
    return Fixed(_form(pairs), {name: value for name, value in members.items() if value})


def usual(options: SesOptions) -> Api:
    """Return the API that small messages take: v2 where it is named, or where v1 lacks what the transport wants."""
    only_v2 = options.tenant or options.endpoint_id or options.contact_list or options.feedback_forwarding
    return "v2" if options.api == "v2" or (options.api == "auto" and only_v2) else "v1"


def most(api: Literal["auto", "v1", "v2"]) -> int:
    """Return the octets of the largest message that a transport of this `api` takes."""
    return V1_MAX if api == "v1" else V2_MAX


def too_large(api: Literal["auto", "v1", "v2"], size: int) -> Failed:
    """Return what becomes of a message that is larger than that."""
    found, text = ses_meaning.TOO_LARGE, f"The message has {size} octets, but SES accepts at most {most(api)} by this API"
    return Failed(Reply(554, f"5.{found.enhanced}", text), found.scope, ses_meaning.remedy(found, {}))


def fitting(options: SesOptions, size: int) -> Api | Failed:
    """Return the API for a message of `size` octets, or why there is none."""
    api = usual(options)
    if api == "v1" and size > V1_MAX and options.api == "auto":
        api = "v2"
    return api if size <= most(api) else too_large(options.api, size)


def body(api: Api, fixed: Fixed, source: str, destinations: Sequence[str], tags: Mapping[str, str], raw: bytes | Filed) -> Body:
    """Return the body of one call."""
    if api == "v1":
        return Body(_form_head(fixed.form, source, destinations, tags), raw, escaped=True)
    document = {
        "FromEmailAddress": source,
        "Destination": {"ToAddresses": list(destinations)},
        "EmailTags": [{"Name": name, "Value": value} for name, value in tags.items()],
        **fixed.members,
        "Content": {"Raw": {"Data": "\0"}},
    }
    head, _, tail = json.dumps(document, separators=(",", ":")).rpartition(json.dumps("\0"))
    return Body(f'{head}"'.encode("ascii"), raw, f'"{tail}'.encode("ascii"))


def _form_head(fixed: bytes, source: str, destinations: Iterable[str], tags: Mapping[str, str]) -> bytes:
    pairs = [("Source", source)]
    pairs += [(f"Destinations.member.{n}", address) for n, address in enumerate(destinations, 1)]
    for n, (name, value) in enumerate(tags.items(), 1):
        pairs += [(f"Tags.member.{n}.Name", name), (f"Tags.member.{n}.Value", value)]
    return b"%b&%b&RawMessage.Data=" % (fixed, _form(pairs))


def _form(pairs: Iterable[tuple[str, str]]) -> bytes:
    return "&".join(f"{name}={_quoted(value)}" for name, value in pairs).encode("ascii")


def _quoted(value: str) -> str:
    if _COMMON.match(value):  # nearly every address: ten times as quick
        return value.replace("@", "%40")
    return quote(value, safe="-_.~")

"""What the stand-in remembers of a message that it took."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that was accepted. `fault`: what then kept the caller from learning so. Units: `at` Unix seconds.

    `named`: what else the call named: ARNs, tenant, endpoint, lists. `suppressed`: destinations that SES took, counted and did
    not send to.
    """

    message_id: str
    source: str
    destinations: tuple[str, ...]
    raw: bytes
    tags: Mapping[str, str]
    configuration_set: str | None
    at: float
    fault: str | None = None
    api: str = "v1"
    named: Mapping[str, Any] = field(default_factory=dict)
    suppressed: tuple[str, ...] = ()

    @property
    def message(self) -> EmailMessage:
        """The message as a mail program reads it."""
        return message_from_bytes(self.raw, policy=policy.default)

    def document(self) -> dict[str, Any]:
        return {
            "message_id": self.message_id, "source": self.source, "destinations": list(self.destinations),
            "raw": base64.b64encode(self.raw).decode("ascii"), "tags": dict(self.tags),
            "configuration_set": self.configuration_set, "at": self.at, "fault": self.fault,
            "api": self.api, "named": dict(self.named), "suppressed": list(self.suppressed),
        }  # fmt: skip

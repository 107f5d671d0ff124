"""The Protocols between rooms: what each room promises the others, and the records that cross.

Invariant: no implementation here, no vendor, no clock. A new transport, spool or sink is one file that keeps one of
these promises and one line in its contract suite.
"""

from __future__ import annotations

from sesrelay.mail.records import DeliveryRecord, Filter, MessageRecord, StandingHold, Stats
from sesrelay.seams.clock import Clock
from sesrelay.seams.desk import Desk, Document
from sesrelay.seams.intake import Intake
from sesrelay.seams.observer import Observer, Pause
from sesrelay.seams.spool import (
    Claim,
    ContentGone,
    NoSpace,
    Opened,
    Settlement,
    Spool,
    SpoolAdmin,
    SpoolError,
    Submission,
    Superseded,
    Told,
    Unfit,
    Verb,
)
from sesrelay.seams.transport import Content, Interrupted, Preflight, Reserving, Transport

__all__ = [
    "Claim",
    "Clock",
    "Content",
    "ContentGone",
    "DeliveryRecord",
    "Desk",
    "Document",
    "Filter",
    "Intake",
    "Interrupted",
    "MessageRecord",
    "NoSpace",
    "Observer",
    "Opened",
    "Pause",
    "Preflight",
    "Reserving",
    "Settlement",
    "Spool",
    "SpoolAdmin",
    "SpoolError",
    "StandingHold",
    "Stats",
    "Submission",
    "Superseded",
    "Told",
    "Transport",
    "Unfit",
    "Verb",
]

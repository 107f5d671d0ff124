"""What a route may send, as the file says it: rates, caps, a warm-up."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from sesrelay.config.part import Part
from sesrelay.config.values import TIMES, Whole
from sesrelay.policy import limits as policy

_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:/ ?([smhd]))?\Z", re.ASCII)
_HEADER = re.compile(r"[!-9;-~]{1,76}\Z", re.ASCII)
PLAN = (50, 100, 200, 400, 800, 1500, 3000, 5000, 8000, 12000, 18000, 27000, 40000, 60000)
"""Recipients of each day of a warm-up: half as much again to twice as much a day, as the guides of mailbox providers ask."""


def parse_route_rate(value: object) -> float:
    """Return recipients a second."""
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    found = _RATE.match(text) if isinstance(text, str) else None
    rate = float(found[1]) / TIMES[found[2] or ""] if found else 0.0
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError("must be recipients per time, as in 10/s, 600/m, 5000/h or 20000/d")
    return rate


def parse_day(value: object) -> float:
    """Return the midnight UTC at which a day begins, in Unix seconds."""
    try:
        day = date.fromisoformat(value if isinstance(value, str) and len(value) == 10 else "")
    except ValueError:
        raise ValueError("must be a day, as in 2026-01-31") from None
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def parse_any_header(value: str) -> str:
    if not _HEADER.match(value):
        raise ValueError("must be the name of a header field, as in X-Priority")
    return value


RouteRate = Annotated[
    float,
    BeforeValidator(parse_route_rate),
    WithJsonSchema(
        {"type": ["string", "number"], "pattern": "^([0-9]+([.][0-9]+)? ?(/ ?[smhd])?|[$][{].*)$", "examples": ["10/s", "5000/h"]}
    ),
]
Day = Annotated[float, BeforeValidator(parse_day), WithJsonSchema({"type": "string", "examples": ["2026-01-31"]})]
AnyHeader = Annotated[str, AfterValidator(parse_any_header)]
Cap = Annotated[Whole, Field(ge=1)]


class WarmUp(Part):
    """A daily cap that grows day by day, for an IP address or a domain that mailbox providers do not know yet."""

    start: Day = Field(description="The first day, as in `2026-01-31`. Days begin at midnight UTC.")
    plan: tuple[Cap, ...] = Field(
        PLAN,
        min_length=1,
        max_length=400,
        description="Recipients on the first day, on the second day, and so on. After the last day there is no cap.",
    )

    def limit(self) -> policy.WarmUp:
        return policy.WarmUp(self.start, self.plan)

"""Figures in words a person reads, and times as a person writes them."""

from __future__ import annotations

from datetime import datetime, time, timedelta

import click


def seconds(text: str) -> float:
    """Read a time as the configuration has it, for an option of click. Raises: click.BadParameter"""
    from sesrelay.config.values import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def moment(text: str) -> float:
    """Read a time in the future for an option of click, and return Unix seconds. Raises: click.BadParameter

    `2026-12-31T09:00:00Z`, `2026-12-31 09:00` and `09:00` (the next one) in local time, or `+2h`.
    """
    now = datetime.now().astimezone()
    try:
        if text.startswith("+"):
            return now.timestamp() + seconds(text[1:])
        if len(text) <= len("00:00:00"):
            found = datetime.combine(now.date(), time.fromisoformat(text)).astimezone()
            if found <= now:
                found = datetime.combine(now.date() + timedelta(days=1), found.time()).astimezone()
            return found.timestamp()
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter("not a time: use one like 2026-12-31T09:00:00Z, '2026-12-31 09:00', 09:00 or +2h") from None


def harmless(text: str) -> str:
    """Return text that others have written as a terminal may have it: what would steer it is spelt out."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def size(octets: float) -> str:
    if octets < 1024:
        return f"{octets:.0f} B"
    for unit in ("KiB", "MiB"):
        octets /= 1024
        if octets < 1024:
            return f"{octets:.1f} {unit}"
    return f"{octets / 1024:.1f} GiB"


def age(elapsed: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if elapsed >= 2 * length:
            return f"{elapsed / length:.0f}{unit}"
    return f"{elapsed:.0f}s"


def number(count: int, what: str) -> str:
    """Return a count with its noun: `1 delivery`, `12,000 deliveries`."""
    if count != 1:
        what = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{count:,} {what}"

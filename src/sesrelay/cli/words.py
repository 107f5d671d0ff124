"""Figures in words a person reads, and times as a person writes them."""

from __future__ import annotations

import click


def seconds(text: str) -> float:
    """Read a time as the configuration has it, for an option of click. Raises: click.BadParameter"""
    from sesrelay.config.values import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def size(octets: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if octets < 1024 or unit == "GiB":
            return f"{octets:.0f} {unit}" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1024
    raise AssertionError("unreachable")


def age(elapsed: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if elapsed >= 2 * length:
            return f"{elapsed / length:.0f}{unit}"
    return f"{elapsed:.0f}s"

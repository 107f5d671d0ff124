"""MTA-STS policies that are kept: in memory, and in a file that outlives the daemon.

Invariant: a file that cannot be read or written costs a fetch, and nothing else.

Source: RFC 8461 §5.1: without what is kept, whoever can hold up the DNS for a moment has no policy to fear.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from sesrelay.transport.tls.mta_sts import Policy

SIZE = 10_000  # policies


@dataclass(frozen=True, slots=True)
class Kept:
    """A policy under its id. Units: `fetched` Unix seconds."""

    id: str
    fetched: float
    policy: Policy


class PolicyCache:
    """The policies used last. `file` None: in memory only. Runs on: the loop."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._kept: OrderedDict[str, Kept] = OrderedDict(_read(file) if file is not None else {})
        self._writing = asyncio.Lock()

    def get(self, domain: str, now: float) -> Kept | None:
        """Return what is kept and has not expired. Units: `now` Unix seconds."""
        kept = self._kept.get(domain)
        if kept is None:
            return None
        if now >= kept.fetched + kept.policy.max_age:
            del self._kept[domain]
            return None
        self._kept.move_to_end(domain)
        return kept

    async def put(self, domain: str, kept: Kept) -> None:
        """Keep a policy, on the disk too."""
        self._kept[domain] = kept
        self._kept.move_to_end(domain)
        if len(self._kept) > SIZE:
            self._kept.popitem(last=False)
        if self._file is not None:
            async with self._writing:
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(_write, self._file, _text(self._kept))


def _text(kept: OrderedDict[str, Kept]) -> str:
    return json.dumps(
        {domain: [one.id, one.fetched, one.policy.mode, list(one.policy.mx), one.policy.max_age] for domain, one in kept.items()}
    )


def _write(file: Path, text: str) -> None:
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, file)  # noqa: PTH105  # atomic, and says so


def _read(file: Path) -> dict[str, Kept]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {
            str(domain): Kept(str(id_), float(fetched), Policy(mode, tuple(map(str, mx)), int(max_age)))
            for domain, (id_, fetched, mode, mx, max_age) in found.items()
            if mode in ("enforce", "testing", "none")
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}

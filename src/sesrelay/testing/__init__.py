"""Stand-ins for the other side, stricter than mocks, for tests and for trying sesrelay out without an account.

`SesServer` is what a test wants: an SES on loopback, in a thread of its own. docs/testing.md shows how.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sesrelay.testing.ses import SesStandIn
    from sesrelay.testing.ses_faults import Fault
    from sesrelay.testing.ses_journal import Taken
    from sesrelay.testing.ses_rules import Account
    from sesrelay.testing.ses_server import SesServer

__all__ = ["Account", "Fault", "SesServer", "SesStandIn", "Taken"]

# Imported when they are asked for: `python -m sesrelay.testing.ses` must not find its module loaded already.
_WHERE = {"Account": "ses_rules", "Fault": "ses_faults", "SesServer": "ses_server", "SesStandIn": "ses", "Taken": "ses_journal"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"sesrelay.testing.{_WHERE[name]}"), name)

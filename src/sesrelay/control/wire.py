"""The control socket's protocol: one JSON object a line, a request and then its answer.

Request: `{"verb": NAME, "args": {…}}`, and `"queue": PATH` where the daemon of another queue is not to answer (the real
path of its state_dir). Answer: any number of `{"item": …}` and `{"progress": [LOOKED_AT, CHANGED]}`, then `{"end": …}` or
`{"error": TEXT}`, with `"queue": PATH` where this is the daemon of that one.
Where a request or an end has `"octets": N`, the content of a message follows its line: N octets as they are.
"""

from __future__ import annotations

import json
from typing import Any

from sesrelay.mail.delivery import State
from sesrelay.seams import Filter

LINE_MAX = 1 << 24  # octets; one `trace` of a message with many recipients is one line
CONTENT_MAX = 1 << 30  # octets of one message; above what any configuration lets in


def line(document: dict[str, Any]) -> bytes:
    # Octets of a command line that are no UTF-8 come as lone surrogates: they match nothing, and stop nothing.
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def filter_to_json(filter: Filter) -> dict[str, Any]:
    return {
        "ids": list(filter.ids),
        "states": [state.value for state in filter.states],
        "sender": filter.sender,
        "recipient": filter.recipient,
        "transport": filter.transport,
        "older_than": filter.older_than,
    }


def filter_from_json(args: dict[str, Any]) -> Filter:
    """Raises: KeyError, ValueError, TypeError for what no client of ours sends."""
    return Filter(
        ids=tuple(args["ids"]),
        states=tuple(State(state) for state in args["states"]),
        sender=args["sender"],
        recipient=args["recipient"],
        transport=args["transport"],
        older_than=args["older_than"],
    )

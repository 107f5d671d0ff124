"""The log: one line an event, JSON for machines or coloured text for a terminal, always on stderr.

Invariant: an event is exactly one line; what clients and remote hosts said holds no control character in it.
Invariant: subjects, bodies and secrets never enter: facts with a secret's name are masked, and libraries are heard
from WARNING on, whatever our own level is (botocore logs signed headers at DEBUG).
Invariant: no global structlog configuration; only the standard library's root logger is set, to catch libraries.

Source: RFC 3339 §5.6 (times); RFC 8259 §7 (escapes).
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, BinaryIO, Literal

from sesrelay.mail.dates import rfc3339
from sesrelay.observe import journal
from sesrelay.observe.flood import Flood
from sesrelay.seams import Clock

# structlog imports rich where it is installed, for tracebacks in colour, of which we show none. That costs each start 55 ms and
# each daemon 5 MiB.
_rich = sys.modules.get("rich")
sys.modules["rich"] = _rich  # type: ignore[assignment]  # None: there is no such module. Python's reference, "The module cache"
import structlog  # noqa: E402
from structlog.typing import FilteringBoundLogger as FilteringBoundLogger  # noqa: E402, PLC0414 - handed on
from structlog.typing import Processor  # noqa: E402

if _rich is None:
    del sys.modules["rich"]

Format = Literal["auto", "console", "json"]
Level = Literal["debug", "info", "warning", "error"]

LEVELS: dict[str, int] = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
FRAMES_MAX = 12
ITEMS_MAX = 50
BURST_LIBRARY = 50  # lines of one library's logger in a window: asyncio has one for each accept that fails
TEXT_MAX = 2000  # characters of one value that came from elsewhere

# The keys of every line; a fact of the same name must not replace them.
_RESERVED = frozenset({"time", "level", "event", "exc_info", "stack_info"})
_SECRET = re.compile(r"passw|secret|token|authorization|credential_value|private_key", re.I)
# C1 controls, DEL, bidirectional overrides, invisible format characters, line separators, lone surrogates.
_UNSEEN = re.compile("[\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufff9-\ufffb]")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufff9-\ufffb]")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def configure(*, format: Format, level: Level, clock: Clock, stream: BinaryIO | None = None) -> FilteringBoundLogger:
    """Return the logger of this process, and lead the standard library's logging into it.

    `stream` takes the encoded lines; default: stderr. `auto` is console where that is a terminal.
    """
    out = stream if stream is not None else sys.stderr.buffer
    terminal = out.isatty()
    pretty = format == "console" or (format == "auto" and terminal)
    processor = _console(clock, colors=terminal) if pretty else _json(clock, journal.PRIORITIES if journal.reads(out) else {})
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.BytesLogger(out),
        processors=[processor],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        context_class=dict,
    ).bind()
    _bridge(logger, LEVELS[level], clock)
    return logger


def facts_of(facts: MutableMapping[str, Any]) -> dict[str, Any]:
    """Return facts from elsewhere fit for a line: secrets masked, reserved names moved aside, values cut to size."""
    return {f"{key}_" if key in _RESERVED else key: _fact(key, value) for key, value in facts.items()}


def describe(error: BaseException) -> dict[str, str]:
    """Return what a line says of `error`: what it and its causes are, and the innermost frames without their values."""
    chain: list[str] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        chain.append(f"{type(link).__name__}: {link}"[:TEXT_MAX])
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
    where = " < ".join(f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return {"error": "; caused by ".join(chain), "where": where}


def _fact(key: str, value: Any) -> Any:
    if _SECRET.search(key) and not key.endswith("_file"):
        return "[masked]"
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [str(one)[:TEXT_MAX] for one in value[:ITEMS_MAX]]
    return str(value)[:TEXT_MAX]


def _short(filename: str) -> str:
    return "/".join(filename.rsplit("/", 2)[-2:])


def _json(clock: Clock, prefixes: Mapping[str, str]) -> Processor:
    wall, escape = clock.wall, _escape

    def render(_: Any, level: str, event: MutableMapping[str, Any]) -> bytes:
        line = _encode({"time": rfc3339(wall()), "level": level, "event": event.pop("event"), **event})
        # The encoder has escaped what is below 0x20; the rest is rare, and legal as \u escapes inside a JSON string.
        if not line.isascii() or "\x7f" in line:
            line = _UNSEEN.sub(escape, line)
        return (prefixes.get(level, "") + line).encode()

    return render


def _console(clock: Clock, *, colors: bool) -> Processor:
    pretty = structlog.dev.ConsoleRenderer(colors=colors, sort_keys=False, timestamp_key="time", pad_event_to=12)

    def render(logger: Any, level: str, event: MutableMapping[str, Any]) -> bytes:
        seen: dict[str, Any] = {key: _clean(value) for key, value in event.items() if value is not None}
        text = pretty(logger, level, {"time": rfc3339(clock.wall())[11:-1], "level": level, **seen})
        return str(text).encode("utf-8", "backslashreplace")

    return render


def _clean(value: Any) -> Any:
    if isinstance(value, list):
        value = ", ".join(value)
    if isinstance(value, str) and not value.isprintable():
        return _UNSAFE.sub(_escape, value)
    return value


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


class _Bridge(logging.Handler):
    """Writes what libraries log as events named `library`."""

    def __init__(self, logger: FilteringBoundLogger, clock: Clock) -> None:
        super().__init__()
        self._flood = Flood(clock.monotonic)
        self._say: dict[int, Callable[..., Any]] = {logging.WARNING: logger.warning, logging.ERROR: logger.error}

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._flood.hiding:
                for (event, kind), number in self._flood.over():
                    self._say[logging.WARNING]("not_shown", of=event, kind=kind, lines=number)
            left = self._flood.passes(("library", record.name), BURST_LIBRARY)
            if not left:
                return
            facts: dict[str, Any] = {"source": record.name, "text": record.getMessage()[:TEXT_MAX], **self._flood.noted(left)}
            if record.exc_info and record.exc_info[1] is not None:
                facts |= describe(record.exc_info[1])
            self._say[logging.ERROR if record.levelno >= logging.ERROR else logging.WARNING]("library", **facts)
        except Exception:
            self.handleError(record)


def _bridge(logger: FilteringBoundLogger, level: int, clock: Clock) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Bridge):
            root.removeHandler(handler)
    root.addHandler(_Bridge(logger, clock))
    root.setLevel(max(logging.WARNING, level))
    logging.captureWarnings(True)

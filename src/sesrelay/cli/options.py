"""What verbs share: the `--config` option, values as the configuration takes them, and how problems with it end a verb."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from sesrelay.config.document import Document
    from sesrelay.config.loading import Loaded
    from sesrelay.config.problem import ConfigError

DEFAULT_CONFIG = Path("/etc/sesrelay/config.yaml")

# Source: sysexits.h, as far as the public contract uses it.
EX_OK = 0
EX_FAILED = 1
EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_TEMPFAIL = 75
EX_CONFIG = 78
EX_INTERRUPTED = 130  # 128 + SIGINT, as shells count

Function = TypeVar("Function", bound=Callable[..., Any])


def value(kind: str, module: str = "sesrelay.config.values") -> Callable[[str], str]:
    """Return the type of an option or argument that the configuration has, too: `kind` as in `parse_KIND` of `module`.

    What it reads with raises click.BadParameter.
    """

    def read(text: str) -> str:
        try:
            found: str = getattr(importlib.import_module(module), f"parse_{kind}")(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        return found

    return read


REGION, DOMAIN, PATTERN, NAME = value("region"), value("domain"), value("pattern"), value("name")
SELECTOR = value("selector", "sesrelay.config.dkim")


def config_option(function: Function) -> Function:
    """Give a verb `--config FILE`, passed as `config: Path`."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path, readable=False),  # reading it says more of why it cannot be read
        default=str(DEFAULT_CONFIG),
        show_default=True,
        metavar="FILE",
        help="The configuration; site files are read from sites.d beside it.",
    )(function)


def json_option(function: Function) -> Function:
    """Give a verb `--json`, passed as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")(function)


def reason(error: OSError, place: Path | None = None) -> str:
    """Return what the system would not do, where (`place`, if it does not say so itself), and who may."""
    where = error.filename2 or error.filename or place  # the second is what was to be replaced
    remedy = " (run this as root: sudo)" if isinstance(error, PermissionError) and os.geteuid() else ""
    return f"{where}: {error.strerror}{remedy}" if where else f"{error}{remedy}"


def load_or_exit(
    path: Path,
    *,
    problems_to_stdout: bool = False,
    now: float | None = None,
    rehearse: Callable[[Loaded, Document], None] | None = None,
) -> Loaded:
    """Return the configuration, or print every problem on a line of its own (on stderr, or stdout) and exit 78.

    `now`, `rehearse`: see config.loading.load.
    """
    from sesrelay.config.loading import load
    from sesrelay.config.problem import ConfigError

    try:
        return load(path, now=now, rehearse=rehearse)
    except ConfigError as error:
        exit_with_problems(error, problems_to_stdout=problems_to_stdout)


class Output(io.FileIO):
    """Stdout or stderr whose reader may go, as in `sesrelay send … | head -1`: what is written then is lost, and no error.

    So the verb goes on, and ends with the exit code that it would have had. A FIFO that is read again later gets what is
    written from then on.
    """

    left = False

    @classmethod
    def instead_of(cls, given: io.TextIOWrapper) -> io.TextIOWrapper:
        """Return what writes to the same descriptor, in the same way."""
        buffer = io.BufferedWriter(cls(given.fileno(), "w", closefd=False))
        return io.TextIOWrapper(
            buffer, given.encoding, given.errors, line_buffering=given.line_buffering, write_through=given.write_through
        )

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            self.left = True
            return memoryview(data).nbytes
        except OSError as error:  # as on a full disk
            error.filename = {1: "standard output", 2: "standard error"}.get(self.fileno())
            raise


def to_nowhere(number: int) -> None:
    """Lead what is still to be written to this descriptor into /dev/null."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def reader_left() -> bool:
    """Tell whether the reader of stdout has gone, for what would otherwise go on writing for nobody."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, Output) and raw.left


def exit_with_problems(error: ConfigError, *, problems_to_stdout: bool = False) -> NoReturn:
    """Print every problem on a line of its own and exit 78."""
    for problem in error.problems:
        if problems_to_stdout:
            click.echo(str(problem))
        else:
            complain(str(problem))
    raise SystemExit(EX_CONFIG)


def complain(text: str) -> None:
    """Print an error on stderr; the journal of systemd takes it for one, too."""
    from sesrelay.observe import journal

    level = journal.PRIORITIES["error"] if journal.reads(sys.stderr) else ""
    for line in text.splitlines():
        click.echo(level + line, err=True)

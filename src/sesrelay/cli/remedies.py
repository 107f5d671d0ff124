"""What people are told where a verb ends.

Commands in it are as they have to be typed: with the configuration that this verb was run with.

Invariant: with the default configuration every text is left as it is.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NoReturn

import click

from sesrelay.cli.options import DEFAULT_CONFIG, EX_FAILED, complain

CONFIGURED = {
    "run": "",
    "reload": "",
    "check": "",
    "route": "",
    "lint": "",
    "trace": "",
    "send": "",
    "doctor": "",
    "init": "",
    "iam-policy": "",
    "queue": "list|show|summary|retry|hold|release|delete|export|import",
    "site": "add|list|remove",
    "import": "postfix|ubos",
    "dkim": "generate|show",
    "domain": "add|show|verify|remove|dns",
    "credentials": "create|rotate",
    "account": "request-production|",
}
"""Verbs that take --config, and those of groups."""

_VERBS = "|".join(f"{verb} (?:{below})" if below and not below.endswith("|") else verb for verb, below in CONFIGURED.items())
# A command goes on to the mark that ends it, to a full stop, or to the end of the text. What is in quotes is part of it, and
# so is the apostrophe as shlex.quote writes it.
_COMMAND = re.compile(rf"\bsesrelay (?:{_VERBS})\b(?!-)(?:'[^']*'|\"'\"|[^`,;()'\n.]|\.(?!\s|$))*")


def as_run(text: str) -> str:
    """Return `text` with --config behind each command in it, where the verb that runs was given another file than the default."""
    context = click.get_current_context(silent=True)
    config = context.params.get("config") if context is not None else None
    return text if config is None else with_config(text, config)


def fail(text: str, code: int = EX_FAILED) -> NoReturn:
    """End the verb, and say why on stderr."""
    complain(as_run(f"sesrelay: {text}"))
    raise SystemExit(code)


def with_config(text: str, config: Path) -> str:
    """Return `text` with `--config FILE` behind each command in it; see `as_run`."""
    if config == DEFAULT_CONFIG:
        return text
    named = f" --config {shlex.quote(str(config))}"
    return _COMMAND.sub(lambda found: _named(found[0], named), text)


def _named(command: str, named: str) -> str:
    bare = command.rstrip()
    return command if "--config" in bare else bare + named + command[len(bare) :]

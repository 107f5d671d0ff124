"""The command line: one module a verb, imported only when its verb is called.

Invariant: `sesrelay --help` imports click and nothing heavier.
Invariant: a wrong command line exits 64 (sysexits.h), never click's own 2.
Invariant: colours are for terminals, and for those who have not set NO_COLOR (https://no-color.org).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from typing import Any

import click

from sesrelay import __version__
from sesrelay.cli.options import EX_FAILED, EX_INTERRUPTED, EX_OK, EX_USAGE, Output, reason, to_nowhere

# verb: (module, what it does in one line). The module's `command` is the click command or group.
VERBS: dict[str, tuple[str, str]] = {
    "run": ("sesrelay.cli.run", "Relay mail: the daemon, in the foreground."),
    "demo": ("sesrelay.cli.demo", "Try the relay without an AWS account and without a configuration."),
    "reload": ("sesrelay.cli.reload", "Apply a changed configuration to the running relay."),
    "check": ("sesrelay.cli.check", "Validate the configuration; show what is wrong and where."),
    "route": ("sesrelay.cli.route", "Show which route a sender's mail takes, and why."),
    "lint": ("sesrelay.cli.lint", "Check whether SES would accept a message, and what would be changed."),
    "queue": ("sesrelay.cli.queue", "List, show, retry, hold, release, delete, export or import mail."),
    "trace": ("sesrelay.cli.trace", "Show the whole history of a message."),
    "send": ("sesrelay.cli.send", "Submit a test message and follow it."),
    "doctor": ("sesrelay.cli.doctor", "Find what keeps mail from arriving, and say what to do."),
    "init": ("sesrelay.cli.init", "Write a first configuration, from a few questions."),
    "site": ("sesrelay.cli.site", "Add, list or remove a site: its sender domains and their transport."),
    "import": ("sesrelay.cli.import_", "Create sites from the configuration of Postfix or UBOS."),
    "dkim": ("sesrelay.cli.dkim", "Generate DKIM keys and their DNS records."),
    "domain": ("sesrelay.cli.domain", "Set up a sender domain in SES and in the DNS."),
    "account": ("sesrelay.cli.account", "Show the limits and status of the SES account; request production access."),
    "iam-policy": ("sesrelay.cli.iam_policy", "Print the least-privilege IAM policy for the configuration."),
    "credentials": ("sesrelay.cli.credentials", "Create or rotate the IAM user of this relay."),
    "smtp-password": ("sesrelay.cli.smtp_password", "Turn a secret access key on stdin into an SES SMTP password."),
    "password-hash": ("sesrelay.cli.password_hash", "Make the hash of a password, for access.users."),
}


class Verbs(click.Group):
    """A group that imports a verb's module when the verb is called, and knows its help without that."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[cmd_name][0]).command
        command.name = cmd_name  # the page of verbs names it so
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            ctx.fail(f"There is no verb {args[0]!r}." + (f" Did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]}, subcommand_metavar="VERB [ARGS]...")
@click.version_option(__version__, prog_name="sesrelay", message="%(prog)s %(version)s")
def cli() -> None:
    """A local mail relay that routes by the sender's domain to Amazon SES, another relay, or the recipient.

    Every verb has its own --help.
    """
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False


def main(args: list[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    _open_closed_streams()
    for name in ("stdout", "stderr"):
        given = getattr(sys, name)
        if isinstance(given, io.TextIOWrapper) and given is getattr(sys, f"__{name}__") and not given.isatty():
            setattr(sys, name, Output.instead_of(given))
    try:
        code = _run(args)
        sys.stdout.flush()
    except OSError as error:  # a full disk behind stdout, for one
        with contextlib.suppress(OSError):
            click.echo(f"sesrelay: {reason(error)}", err=True)
        for stream in (sys.stdout, sys.stderr):  # at the end it is tried once more, and from Python 3.13 on complained of
            to_nowhere(stream.fileno())
        return EX_FAILED
    return code


def _open_closed_streams() -> None:
    """Open /dev/null in place of each standard stream that was closed (`2>&-`).

    Otherwise the next file or socket would get its number, and libuv, which closes none of the three, would abort the process.
    """
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - to the end of the process


def _run(args: list[str] | None) -> int:
    try:
        result: Any = cli.main(args, prog_name="sesrelay", standalone_mode=False)
    except SystemExit as leaving:
        result = leaving.code
    except click.UsageError as error:
        error.show()
        return EX_USAGE
    except click.ClickException as error:
        error.show()
        return EX_FAILED
    except (click.Abort, KeyboardInterrupt):
        return EX_INTERRUPTED
    return result if isinstance(result, int) else EX_OK

"""`sesrelay account`: what the SES account may send, how it stands, and the way out of the sandbox."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from sesrelay.cli.options import EX_FAILED, EX_USAGE, json_option
from sesrelay.cli.remedies import as_run, fail
from sesrelay.cli.ses import Access, Wish, access, account_options, confirmed, refusals, yes_option

if TYPE_CHECKING:
    from sesrelay.aws.account import Reputation
    from sesrelay.aws.standing import Standing
    from sesrelay.setup.production_request import UseCase

BOUNCES = (
    "SES's suppression list is on for bounces and complaints, so SES sends nothing to such addresses again; "
    "we remove them from our lists."
)


@click.group("account", invoke_without_command=True)
@account_options
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool, wish: Wish) -> None:
    """Show quota, rate, sandbox, enforcement, bounce and complaint rates of the SES account."""
    if context.invoked_subcommand is not None:
        named = [name for name in context.params if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
        if named:
            raise click.UsageError(f"Put the options after {context.invoked_subcommand}.")
        return
    from sesrelay.aws.standing import standing

    used = access(wish)
    with refusals():
        told = standing(used.clients, time.time())
    if as_json:
        click.echo(json.dumps({"transport": used.transport, **told.document()}, indent=2))
    else:
        _print(used, told)


@command.command("request-production")
@click.option("--mail-type", type=click.Choice(["transactional", "marketing"]), help="What kind of mail you mostly send.")
@click.option("--website", metavar="URL", help="The web site that the mail belongs to.")
@click.option("--sends", metavar="TEXT", help="What you send.")
@click.option("--recipients", metavar="TEXT", help="Who receives it, and how you got the addresses.")
@click.option("--bounces", metavar="TEXT", help="What you do about bounces and complaints.")
@click.option("--unsubscribe", metavar="TEXT", help="How recipients unsubscribe; required for marketing mail.")
@click.option("--daily", type=click.IntRange(1), metavar="N", help="The maximum number of recipients a day.")
@click.option("--contact", "contacts", multiple=True, metavar="ADDRESS", help="A further address for AWS's answer; up to four.")
@click.option("--language", type=click.Choice(["EN", "JA"]), default="EN", show_default=True, help="The language of AWS's answer.")
@yes_option
@account_options
@json_option
def request_production(
    mail_type: str | None,
    website: str | None,
    sends: str | None,
    recipients: str | None,
    bounces: str | None,
    unsubscribe: str | None,
    daily: int | None,
    contacts: tuple[str, ...],
    language: str,
    yes: bool,
    as_json: bool,
    wish: Wish,
) -> None:
    """Ask AWS to take the account out of the sandbox.

    It asks a few questions, each of which is also an option, and shows the request before it is sent.
    """
    from sesrelay.aws.standing import request_production as ask_aws
    from sesrelay.aws.standing import standing

    used = access(wish)
    with refusals():
        told = standing(used.clients, time.time())
        if told.sandbox is False:
            click.echo(f"the account is already out of the sandbox in {told.region}", err=True)
            return
        if told.review == "pending":
            case = (told.details.get("ReviewDetails") or {}).get("CaseId")
            fail(f"a request is under review (case {case}); AWS answers within a day or two")
        given = {"mail_type": mail_type, "website": website, "sends": sends, "recipients": recipients, "bounces": bounces}
        use_case = _use_case({**given, "unsubscribe": unsubscribe, "daily": daily}, contacts, language, used)
        try:
            details = use_case.details()
        except ValueError as error:
            fail(f"{error}", EX_USAGE)
        if not as_json:
            _print_request(details, told.region)
        if not confirmed("Send this to AWS?", yes):
            raise SystemExit(EX_FAILED)
        ask_aws(used.clients, details)
    if as_json:
        click.echo(json.dumps({"region": told.region, "sent": True, "request": details}, indent=2, ensure_ascii=False))
    else:
        click.echo(as_run("sent; AWS answers by mail within a day or two; to see the status: sesrelay account"))


def _use_case(given: dict[str, Any], contacts: tuple[str, ...], language: str, used: Access) -> UseCase:
    """Ask for what was not given. Raises: click.UsageError where nobody is there to ask"""
    from sesrelay.app.ses_access import patterns_to
    from sesrelay.setup.production_request import UseCase

    patterns = patterns_to(used.transport, used.loaded) if used.loaded and used.transport else None
    if given["bounces"] is None and not sys.stdin.isatty():
        given["bounces"] = BOUNCES
    missing = [name for name, value in given.items() if value is None and name != "unsubscribe"]
    if missing and not sys.stdin.isatty():
        raise click.UsageError(
            f"There is no terminal to ask on: give {' '.join('--' + name.replace('_', '-') for name in missing)}"
        )
    questions: list[tuple[str, str, dict[str, Any]]] = [
        ("mail_type", "Kind of mail", {"type": click.Choice(["transactional", "marketing"]), "default": "transactional"}),
        ("website", "Web site that the mail belongs to", {}),
        ("sends", "What do you send", {}),
        ("recipients", "Who receives it, and how did you get the addresses", {}),
        ("bounces", "What do you do about bounces and complaints", {"default": BOUNCES}),
        ("daily", "Maximum number of recipients a day", {"type": click.IntRange(1)}),
    ]
    answers = {key: click.prompt(text, err=True, **how) if given[key] is None else given[key] for key, text, how in questions}
    unsubscribe = given["unsubscribe"]
    if unsubscribe is None and sys.stdin.isatty():
        unsubscribe = click.prompt("How do recipients unsubscribe", default="", show_default=False, err=True)
    chosen: Any = language
    return UseCase(**answers, unsubscribe=unsubscribe or "", contacts=contacts, language=chosen, domains=patterns or ())


def _print_request(details: dict[str, Any], region: str) -> None:
    click.secho(f"Request for production access in {region}", bold=True)
    for name in ("MailType", "WebsiteURL", "ContactLanguage"):
        click.echo(f"  {name:<16}{details[name]}")
    click.echo(f"  {'Contacts':<16}{', '.join(details.get('AdditionalContactEmailAddresses', [])) or 'none besides the account'}\n")
    click.echo(f"{details['UseCaseDescription']}\n")


def _print(used: Access, told: Standing) -> None:
    click.secho(f"{used.transport or 'SES'} in {told.region}", bold=True)
    sandbox = {True: "yes: verified recipients only; leave it with: sesrelay account request-production", False: "no", None: None}
    _line("sandbox", as_run(sandbox[told.sandbox] or "") or None, bad=told.sandbox is True)
    sending = None if told.sending_enabled is None else "on" if told.sending_enabled else "off: see the SES console"
    _line("sending", sending, bad=told.sending_enabled is False)
    _line("enforcement", told.enforcement, bad=told.enforcement not in (None, "healthy"))
    if told.review:
        _line("review", told.review, bad=told.review in ("denied", "failed"))
    _line("rate", f"{told.max_send_rate:g} recipients a second")
    limit = "no limit" if told.max_24h_send is None else f"{told.max_24h_send:,.0f}"
    nearly = told.max_24h_send is not None and told.sent_last_24h > 0.9 * told.max_24h_send
    _line("24 hours", f"{told.sent_last_24h:,.0f} of {limit}", bad=nearly)
    for name, sent in (("last day", told.last_24h), ("last 14 days", told.last_14d)):
        _line(name, _rates(sent), bad=sent is not None and any(rate.bad for rate in sent.rates))
    reasons = None if told.suppression is None else ", ".join(told.suppression) or "off: SES sends again to addresses that bounced"
    _line("suppression", reasons, bad=told.suppression == ())


def _line(name: str, text: str | None, *, bad: bool = False) -> None:
    click.echo(f"  {name:<15}", nl=False)
    click.secho(text or "unknown: the credentials lack the permission, or AWS throttled the request", fg="red" if bad else None)


def _rates(sent: Reputation | None) -> str | None:
    if sent is None:
        return None
    if not sent.attempts:
        return "nothing sent"
    bounced, complained = (
        f"{rate.value:.{digits}%} {what} (review at {rate.limit * 100:g}%)"
        for rate, digits, what in zip(sent.rates, (2, 3), ("bounced", "complained"), strict=True)
    )
    return f"{sent.attempts:,} sent, {bounced}, {complained}"

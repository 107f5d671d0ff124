"""`sesrelay domain`: a sender's domain in SES, from its creation to the moment it may send."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sesrelay.cli.domain_dns import command as dns_command
from sesrelay.cli.domain_state import DnsWish, State, dns_options, print_state, state_of
from sesrelay.cli.options import EX_FAILED, EX_TEMPFAIL, SELECTOR, json_option
from sesrelay.cli.remedies import as_run, fail
from sesrelay.cli.ses import Access, Wish, access, account_options, confirmed, domain_name, refusals, yes_option
from sesrelay.cli.words import age, seconds

if TYPE_CHECKING:
    from sesrelay.aws.identities import OwnKey


@dataclass(frozen=True, slots=True)
class Waiting:
    """Whether and how long somebody waits. Units: seconds"""

    wait: bool
    timeout: float
    every: float


def wait_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb `--wait`, `--timeout` and `--every`, passed as `waiting: Waiting`."""

    @functools.wraps(function)
    def verb(wait: bool, timeout: float, every: float, **rest: Any) -> Any:
        return function(waiting=Waiting(wait, timeout, every), **rest)

    for option in (
        click.option(
            "--every", default="10s", type=seconds, metavar="TIME", show_default=True, help="How often to check while waiting."
        ),
        click.option(
            "--timeout",
            default="72h",
            type=seconds,
            metavar="TIME",
            show_default=True,
            help="How long to wait; SES itself gives up after 72h.",
        ),
        click.option("--wait", is_flag=True, help="Wait until the domain is verified, and show what is still missing."),
    ):
        verb = option(verb)
    return verb


@click.group("domain")
def command() -> None:
    """Set up a sender domain: its SES identity with DKIM and MAIL FROM, and its records in the DNS.

    The usual order: add it, publish its records (dns --apply), wait until SES has seen them (verify --wait).
    """


command.add_command(dns_command)


@command.command("add")
@click.argument("domain", type=domain_name)
@click.option("--mail-from", metavar="NAME", help="The custom MAIL FROM domain, a sub-domain of DOMAIN. Default: bounce.DOMAIN")
@click.option("--no-mail-from", is_flag=True, help="Keep amazonses.com as the MAIL FROM domain; SPF is then not aligned for DMARC.")
@click.option(
    "--reject-without-mx",
    is_flag=True,
    help="Let SES refuse mail while it does not see the MX of the MAIL FROM domain, instead of using amazonses.com.",
)
@click.option("--dkim-selector", type=SELECTOR, metavar="SELECTOR", help="With --dkim-key: sign with a key of your own (BYODKIM).")
@click.option("--configuration-set", metavar="NAME", help="The default configuration set. Default: the transport's.")
@wait_options
@dns_options
@account_options
@json_option
def add(
    domain: str,
    mail_from: str | None,
    no_mail_from: bool,
    reject_without_mx: bool,
    dkim_selector: str | None,
    configuration_set: str | None,
    as_json: bool,
    dns: DnsWish,
    waiting: Waiting,
    wish: Wish,
) -> None:
    """Create DOMAIN as an identity in SES, and show which DNS records it needs.

    An identity that exists already is updated. Exits 0 when it is created, with --wait when it is verified.
    """
    from sesrelay.aws import identities

    own = _own_key(dkim_selector, dns.dkim_key)
    sender = _mail_from(domain, mail_from, no_mail_from)
    used = access(wish, domain)
    chosen = used.loaded.config.transports.get(used.transport or "") if used.loaded else None
    with refusals():
        new = identities.create(used.clients, domain, own, configuration_set or getattr(chosen, "configuration_set", None))
        click.echo(f"{domain} {'was created' if new else 'exists already'} in {used.clients.region}", err=True)
        # One that somebody has chosen before stays, unless another is named.
        kept = identities.read(used.clients, domain) if sender and not new and mail_from is None else None
        if sender and not (kept and kept.mail_from):
            behaviour: identities.MxFailure = "REJECT_MESSAGE" if reject_without_mx else "USE_DEFAULT_VALUE"
            identities.set_mail_from(used.clients, domain, sender, behaviour)
    _watch(used, domain, dns, waiting, as_json, pending=0)


@command.command("show")
@click.argument("domain", type=domain_name)
@dns_options
@account_options
@json_option
def show(domain: str, as_json: bool, dns: DnsWish, wish: Wish) -> None:
    """Show the status of DOMAIN in SES, and compare its records with the DNS."""
    used = access(wish, domain)
    _print(_state_or_exit(used, domain, dns), as_json)


@command.command("verify")
@click.argument("domain", type=domain_name)
@wait_options
@dns_options
@account_options
@json_option
def verify(domain: str, as_json: bool, dns: DnsWish, waiting: Waiting, wish: Wish) -> None:
    """Show whether DOMAIN may send, and which records are missing. 0: it may; 1: not yet; 75: not within --timeout."""
    used = access(wish, domain)
    _watch(used, domain, dns, waiting, as_json, pending=EX_FAILED)


@command.command("remove")
@click.argument("domain", type=domain_name)
@yes_option
@account_options
def remove(domain: str, yes: bool, wish: Wish) -> None:
    """Remove DOMAIN from SES, which then refuses its mail.

    The DNS records stay; delete them when no mail of the domain is in transit any more."""
    from sesrelay.aws import identities

    used = access(wish, domain)
    with refusals():
        if identities.read(used.clients, domain) is None:
            fail(f"{domain} is not an identity in {used.clients.region}")
        _warn_of_routes(used, domain)
        if not confirmed(f"Remove {domain} from SES in {used.clients.region}?", yes):
            raise SystemExit(EX_FAILED)
        identities.remove(used.clients, domain)
    click.echo(f"{domain} was removed from {used.clients.region}")


def _watch(used: Access, domain: str, dns: DnsWish, waiting: Waiting, as_json: bool, *, pending: int) -> None:
    """Print the state, with `wait` the final one, and leave: 0 where the domain is ready, else `pending` or 75."""
    from sesrelay.aws.clients import AwsError

    begun = time.monotonic()
    state = _state_or_exit(used, domain, dns)
    said = ""
    while waiting.wait and not state.identity.ready and time.monotonic() - begun < waiting.timeout:
        missing = state.missing()
        if missing != said:
            said = missing
            click.echo(f"{age(time.monotonic() - begun):>5}  {missing}", err=True)
        time.sleep(min(waiting.every, max(waiting.timeout - (time.monotonic() - begun), 0.0)))
        try:
            state = state_of(used, domain, dns)
        except AwsError as error:
            # What passes by itself does not end a wait of days.
            click.echo(as_run(f"{age(time.monotonic() - begun):>5}  {error}"), err=True)
            if not error.temporary:
                raise SystemExit(EX_FAILED) from None
    _print(state, as_json)
    if state.identity.ready:
        return
    if waiting.wait:
        goes_on = f"continue with: sesrelay domain verify {domain} --wait"
        fail(f"not verified within {age(waiting.timeout)}; {goes_on}", EX_TEMPFAIL)
    raise SystemExit(pending)


def _state_or_exit(used: Access, domain: str, dns: DnsWish) -> State:
    with refusals():
        return state_of(used, domain, dns)


def _print(state: State, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(state.document(), indent=2, ensure_ascii=False))
    else:
        print_state(state)


def _own_key(selector: str | None, file: Path | None) -> OwnKey | None:
    if (selector is None) != (file is None):
        raise click.UsageError("--dkim-selector and --dkim-key go together.")
    if selector is None or file is None:
        return None
    from sesrelay.setup.dkim_key import own_key

    try:
        return own_key(selector, file)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _mail_from(domain: str, name: str | None, without: bool) -> str | None:
    if without:
        if name:
            raise click.UsageError("--mail-from and --no-mail-from exclude each other.")
        return None
    sender = domain_name(name) if name else f"bounce.{domain}"
    if not sender.endswith(f".{domain}"):
        raise click.BadParameter(f"{sender} is not a sub-domain of {domain}, as SES requires", param_hint="--mail-from")
    return sender


def _warn_of_routes(used: Access, domain: str) -> None:
    from sesrelay.app.ses_access import leads_to_ses, rules_of

    rules = rules_of(domain, used.loaded) if used.loaded else []
    for rule in rules:
        if used.loaded and any(leads_to_ses(used.loaded.config.transports[name]) for name in rule.transports):
            click.echo(f"sesrelay: {rule.pattern} at {rule.source or 'the default'} still routes {domain} to SES", err=True)

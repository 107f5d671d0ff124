"""What SES says of a domain beside what the DNS has, for people and as JSON."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sesrelay.cli.options import value
from sesrelay.cli.remedies import fail
from sesrelay.cli.ses import Access

if TYPE_CHECKING:
    from sesrelay.aws.identities import Identity
    from sesrelay.setup.zones.lookup import Answers
    from sesrelay.setup.zones.records import Finding, Record

_COLOURS = {"ok": "green", "missing": "red", "different": "red", "unknown": "yellow"}
_ADVICE = {
    "HOST_NOT_FOUND": "SES has not found the records",
    "TYPE_NOT_FOUND": "SES has not found the records",
    "INVALID_VALUE": "SES has found other values than the expected ones",
    "DNS_SERVER_ERROR": "the domain's name servers answer SES with an error",
}


@dataclass(frozen=True, slots=True)
class DnsWish:
    """What somebody says of the DNS on the command line."""

    dkim_key: Path | None
    nameservers: tuple[str, ...]
    dmarc: str


def dns_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb `--nameserver`, `--dmarc` and `--dkim-key`, passed as `dns: DnsWish`."""

    @functools.wraps(function)
    def verb(dkim_key: Path | None, nameservers: tuple[str, ...], dmarc: str, **rest: Any) -> Any:
        return function(dns=DnsWish(dkim_key, nameservers, dmarc), **rest)

    for option in (
        click.option(
            "--dkim-key",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The private key (PEM, RSA of 1024 to 2048 bits), if DKIM uses a key of your own.",
        ),
        click.option(
            "--dmarc",
            default="v=DMARC1; p=none",
            show_default=True,
            metavar="TEXT",
            callback=_dmarc,
            help="The DMARC record to use if there is none.",
        ),
        click.option(
            "--nameserver",
            "nameservers",
            multiple=True,
            type=value("nameserver"),
            metavar="IP[:PORT]",
            help="Ask this name server; may be repeated. Default: those of direct transports, else the system's.",
        ),
    ):
        verb = option(verb)
    return verb


@dataclass(frozen=True, slots=True)
class State:
    """A domain as SES and the DNS have it. `answers`: what the DNS said, as it came."""

    identity: Identity
    findings: list[Finding]
    answers: Answers

    def document(self) -> dict[str, Any]:
        return {**self.identity.document(), "records": [finding.document() for finding in self.findings]}

    def missing(self) -> str:
        """Return one line that says what is still in the way."""
        wrong = [finding for finding in self.findings if finding.state != "ok" and finding.record.purpose in ("dkim", "mail_from")]
        if wrong:
            return "waiting for " + "; ".join(f"{f.record.type} {f.record.name} ({f.note or f.state})" for f in wrong)
        waiting = [] if self.identity.verified else [f"DKIM {self.identity.dkim_status}"]
        if self.identity.mail_from_status not in (None, "success"):
            waiting.append(f"MAIL FROM {self.identity.mail_from_status}")
        return f"the DNS records are correct; waiting for SES to see them ({', '.join(waiting)})"


def known_records(used: Access, identity: Identity, wish: DnsWish) -> list[Record]:
    """Return the records that a domain wants."""
    from sesrelay.app.ses_access import direct_senders
    from sesrelay.setup.dkim_key import dkim_record
    from sesrelay.setup.zones.records import wanted

    own = ""
    if wish.dkim_key is not None:
        try:
            own = dkim_record(wish.dkim_key)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    root_spf = direct_senders(identity.domain, used.loaded) if used.loaded else []
    return wanted(identity, own_dkim=own, root_spf=root_spf, dmarc=wish.dmarc)


def identity_or_exit(used: Access, domain: str) -> Identity:
    """Return the identity, or say how it is made. Raises: AwsError"""
    from sesrelay.aws.identities import read

    identity = read(used.clients, domain)
    if identity is None:
        fail(f"{domain} is not an identity in {used.clients.region}; create it: sesrelay domain add {domain}")
    return identity


def state_of(used: Access, domain: str, wish: DnsWish) -> State:
    """Ask SES and the DNS. Raises: AwsError"""
    from sesrelay.app.ses_access import name_servers
    from sesrelay.setup.zones.lookup import Dns, findings, look_up

    identity = identity_or_exit(used, domain)
    records = known_records(used, identity, wish)
    configured = name_servers(used.loaded) if used.loaded else ()
    answers = asyncio.run(look_up(Dns(wish.nameservers or configured), domain, records))
    return State(identity, findings(records, answers), answers)


def print_state(state: State) -> None:
    identity = state.identity
    ready = (
        "may send" if identity.ready else "may send, but not yet with its MAIL FROM domain" if identity.verified else "not verified"
    )
    click.secho(f"{identity.domain} in {identity.region}: ", bold=True, nl=False)
    click.secho(ready, fg="green" if identity.ready else "yellow" if identity.verified else "red")
    signing = "" if identity.dkim_enabled else ", signing is off"
    click.echo(f"  DKIM           {identity.dkim_status}, {'a key of your own' if identity.own_key else 'keys of SES'}{signing}")
    if identity.mail_from:
        click.echo(f"  MAIL FROM      {identity.mail_from}: {identity.mail_from_status}")
    else:
        click.echo("  MAIL FROM      amazonses.com: SPF is not aligned for DMARC, DKIM is")
    click.echo(f"  configuration  {identity.configuration_set or 'no default set'}")
    if identity.error and not identity.verified:
        click.echo(f"  last check     {_ADVICE.get(identity.error, identity.error.lower())}")
    print_findings(state.findings)


def print_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        record = finding.record
        click.secho(f"{finding.state:<10}", fg=_COLOURS[finding.state], nl=False)
        click.echo(
            f"{record.type:<6}{record.name}\n{'':10}{'':6}{record.value or '(the public key: give its file with --dkim-key)'}"
        )
        for found in finding.found if finding.state == "different" else ():
            click.echo(f"{'':16}found: {found}")
        if finding.note:
            click.echo(f"{'':16}{finding.note}")


def _dmarc(context: click.Context, parameter: click.Parameter, value: str) -> str:
    from sesrelay.setup.zones.records import is_dmarc

    if not is_dmarc(value) or "p=" not in value:
        raise click.BadParameter(f"{value!r} is not a DMARC record (use one like 'v=DMARC1; p=none')")
    return value

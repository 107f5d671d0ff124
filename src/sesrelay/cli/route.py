"""`sesrelay route`: which rule a sender's mail follows, and why no other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesrelay.cli.options import config_option, json_option, load_or_exit

if TYPE_CHECKING:
    from sesrelay.config.loading import Loaded
    from sesrelay.policy.routing import Considered, RouteRule

UNLIKE_SHOWN = 20  # rules about other senders that are named one by one


@click.command("route")
@click.argument("sender")
@click.option("--to", "recipient", metavar="RCPT", help="The recipient; it does not affect the route.")
@click.option("--header-from", metavar="A", multiple=True, help="An address in the header From; may be repeated.")
@click.option("--user", metavar="NAME", help="A local user or a login name; also shows whether it may send as SENDER.")
@json_option
@config_option
def command(
    sender: str, recipient: str | None, header_from: tuple[str, ...], user: str | None, as_json: bool, config: Path
) -> None:
    """Show which rule applies to mail from SENDER, and why the others do not.

    SENDER is an envelope sender; '<>' is the null sender.
    """
    sender = bare(sender)
    refuse_malformed(sender, "SENDER", null_allowed=True)
    for address in header_from:
        refuse_malformed(bare(address), "--header-from")
    if recipient is not None:
        refuse_malformed(bare(recipient), "--to")
    loaded = load_or_exit(config)
    from sesrelay.policy.admission import complete_sender

    completed = complete_sender(sender, loaded.local)
    authors = [complete_sender(bare(address), loaded.local) for address in header_from]
    rule, considered = loaded.routing.explain(completed, authors)
    refusal = None if user is None else _refusal(completed, authors, user, loaded)
    asked = {} if user is None else {"user": user, "refusal": refusal}
    to = None if recipient is None else _recipient(bare(recipient), loaded)
    if as_json:
        click.echo(json.dumps({**_document(completed, to, rule, considered), **asked}, indent=2, ensure_ascii=False))
    else:
        if refusal is not None:
            click.secho(f"refused for {user}: {refusal}", fg="red")
        _explain(completed, to, rule, considered)


def _refusal(sender: str, authors: Sequence[str], user: str, loaded: Loaded) -> str | None:
    """Return what the relay would answer `user`, be that a local user (by name or uid) or one who logs in."""
    import pwd

    from sesrelay.mail.envelope import Origin, Owner

    try:
        found = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        owner = Owner(found.pw_uid, found.pw_name)
    except (KeyError, OverflowError):
        owner = Owner(int(user)) if user.isdecimal() else Owner(-1, user)
    origin = Origin(user=user, owner=owner)
    refusal = loaded.senders.check_envelope(sender, origin) or loaded.senders.check_header(authors, authors, sender, origin)
    return str(refusal) if refusal else None


def bare(address: str) -> str:
    """Return an address without the angle brackets that a log or an envelope has around it."""
    return address[1:-1] if address.startswith("<") and address.endswith(">") else address


def refuse_malformed(address: str, what: str, *, null_allowed: bool = False) -> None:
    """End with exit code 64 for what can be no address; one without a domain is completed later."""
    from sesrelay.mail.address import AddressError, check, check_local_part, normalise

    try:
        if "@" in address:
            check(address)
            normalise(address)
        elif address or not null_allowed:
            check_local_part(address)
    except AddressError as error:
        raise click.BadParameter(f"{address!r} is not an address: {error}", param_hint=what) from None


def _recipient(address: str, loaded: Loaded) -> str:
    """Return the recipient as the relay would store it: completed, aliased."""
    from sesrelay.mail.envelope import Recipient
    from sesrelay.policy.admission import complete_recipient

    result = complete_recipient(Recipient(address), loaded.local)
    return result.address if isinstance(result, Recipient) else address


def _document(sender: str, to: str | None, rule: RouteRule, considered: Sequence[Considered]) -> dict[str, object]:
    return {
        "sender": sender,
        "recipient": to,
        "rule": rule.pattern,
        "source": rule.source or None,
        "transports": list(rule.transports),
        "priority": rule.priority.name.lower(),
        "reject": rule.reject,
        "considered": [{"rule": other.rule, "source": other.source or None, "why": other.why} for other in considered],
    }


def _explain(sender: str, to: str | None, rule: RouteRule, considered: Sequence[Considered]) -> None:
    way = (
        click.style("refused with 550 5.7.1", fg="red") if rule.reject else click.style(", then ".join(rule.transports), fg="green")
    )
    towards = f" to {to}" if to else ""
    click.echo(f"{sender or 'the null sender <>'}{towards}: {way}")
    priority = "" if rule.priority.name == "NORMAL" else f", priority {rule.priority.name.lower()}"
    pattern, source = click.style(rule.pattern, bold=True), rule.source or "the built-in default"
    click.echo(f"  by the rule {pattern} at {source}, route {rule.name}{priority}")
    if considered:
        click.echo("  and not by these rules:")
    unlike = [other for other in considered if other.unlike]
    shown = considered if len(unlike) <= UNLIKE_SHOWN else [other for other in considered if not other.unlike]
    for other in shown:
        click.echo(f"    {other.rule} at {other.source or 'the built-in default'}: {other.why}")
    if len(shown) < len(considered):
        click.echo(f"    {len(unlike):,} more, for other senders (--json lists them all)")

"""`doctor`'s work: every look at the whole that setup knows, taken together for one configuration.

Invariant: nothing is changed, and no check waits for another that has nothing to do with it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterable, Sequence
from functools import partial

from sesrelay.app.clock import SystemClock
from sesrelay.app.operator import DaemonUnreachable, open_desk, reach_daemon
from sesrelay.app.ses_access import direct_senders, leads_to_ses, name_servers, rules_of, source_of
from sesrelay.app.ways_out import relay_options
from sesrelay.aws.aside import aside
from sesrelay.aws.clients import Clients
from sesrelay.aws.identities import Identity
from sesrelay.config import transports as configured
from sesrelay.config.loading import Loaded
from sesrelay.control.question import ControlError, NoAnswer
from sesrelay.mail.address import domain_key, parents
from sesrelay.policy.patterns import domain_of_pattern
from sesrelay.seams import Document, SpoolError
from sesrelay.setup.checkup import disk as checkup_disk
from sesrelay.setup.checkup import dns as checkup_dns
from sesrelay.setup.checkup import login as checkup_login
from sesrelay.setup.checkup import machine as checkup_machine
from sesrelay.setup.checkup import readable as checkup_readable
from sesrelay.setup.checkup import ses as checkup_ses
from sesrelay.setup.checkup.check import Check, fail, ok
from sesrelay.setup.checkup.dns import DirectHost, SigningKey
from sesrelay.setup.zones.lookup import Dns, findings, look_up
from sesrelay.setup.zones.records import wanted

AT_ONCE = 20  # looks at the DNS


async def examine(loaded: Loaded, domains: Sequence[str] = (), nameservers: Sequence[str] = ()) -> list[Check]:
    """Look at everything. `domains`: look at these senders alone; none: at all that routes name."""
    checks = await _machine(loaded)
    checks += checkup_machine.reach(loaded)
    checks += checkup_machine.senders(loaded)
    asked = [domain_key(domain) for domain in domains] or routed(loaded)
    used = _used(loaded)
    groups = [
        *(_ses(loaded, name, asked, nameservers) for name in used if isinstance(_config(loaded, name), configured.SesTransport)),
        *(_login(loaded, name) for name in used if isinstance(_config(loaded, name), configured.SmtpTransport)),
        *(
            _direct(loaded, name, asked, nameservers)
            for name in used
            if isinstance(_config(loaded, name), configured.DirectTransport)
        ),
    ]
    for found in await asyncio.gather(*groups):
        checks += found
    return checks


def routed(loaded: Loaded) -> list[str]:
    """Return the domains of senders that routes name, in A-labels, each once."""
    return list(dict.fromkeys(domain_key(domain_of_pattern(rule.pattern)) for rule in loaded.routing.rules if not rule.reject))


def _used(loaded: Loaded) -> list[str]:
    """Return the transports that some rule leads to."""
    return list(dict.fromkeys(name for rule in loaded.routing.all_rules for name in rule.transports))


def _config(loaded: Loaded, name: str) -> configured.Transport:
    return loaded.config.transports[name]


def _senders_by(loaded: Loaded, name: str, domains: Iterable[str]) -> list[str]:
    """Return those of `domains` whose mail may leave by a transport."""
    return [domain for domain in domains if any(name in rule.transports for rule in rules_of(domain, loaded))]


async def _machine(loaded: Loaded) -> list[Check]:
    status: Document | None = None
    try:
        daemon = await reach_daemon(loaded.config)
        if daemon is not None:
            async with daemon:
                status = dict(await daemon.call("status"))
    except NoAnswer as silent:
        told = fail("relay", "sesrelay", silent.message, silent.remedy)
        pid = silent.pid or None
        return [checkup_readable.configuration(loaded, pid), told, checkup_disk.disk(loaded, pid)]
    except (DaemonUnreachable, ControlError, OSError) as error:
        trouble_there = fail("relay", "sesrelay", str(error), "run doctor as root, or as a member of the socket's group")
        return [checkup_readable.configuration(loaded, None), trouble_there]
    checks = [checkup_readable.configuration(loaded, int(status["pid"]) if status else None)]
    checks.append(checkup_machine.relay(str(status["version"]) if status else None))
    checks += checkup_machine.listeners(loaded, set(status["listeners"]) if status else None)
    checks.append(checkup_disk.disk(loaded, int(status["pid"]) if status else None))
    troubles: list[Check] = []

    def trouble(what: str, error: BaseException | None) -> None:
        troubles.append(
            fail(
                "queue",
                "queue",
                f"{what}: {error}" if error else what,
                "do what the message says; for details: journalctl -u sesrelay",
            )
        )

    try:
        async with open_desk(loaded.config, trouble) as desk:
            checks += [ok("queue", "queue", desk.missing)] if desk.missing else checkup_machine.queue(await desk.summary())
    except (DaemonUnreachable, ControlError, SpoolError, OSError) as error:
        trouble("the queue cannot be read", error)
    return checks + troubles


async def _ses(loaded: Loaded, name: str, domains: Sequence[str], nameservers: Sequence[str]) -> list[Check]:
    config = _config(loaded, name)
    assert isinstance(config, configured.SesTransport)
    try:
        clients = Clients(source_of(config))
    except ValueError as error:
        return [fail("region", name, str(error), "set region under the transport")]
    checks = await aside(lambda: list(checkup_ses.account(clients, name, SystemClock().wall())))
    if any(check.check == "account" and check.status == "fail" for check in checks):
        return checks
    senders = _senders_by(loaded, name, domains)
    if senders:
        checks.append(checkup_ses.simulator(name, f"postmaster@{senders[0]}", by_v2=config.api == "v2"))
    dns = Dns(nameservers or name_servers(loaded))
    # One after the other: SES answers such questions once a second.
    told = [(domain, *await aside(partial(checkup_ses.identity, clients, domain))) for domain in senders]
    return checks + await _together(_published(loaded, dns, *each) for each in told)


async def _published(loaded: Loaded, dns: Dns, domain: str, check: Check, identity: Identity | None) -> list[Check]:
    """Look whether the DNS has what SES wants of a domain; `check`: what SES says of it."""
    if identity is None:
        return [check]
    records = wanted(identity, root_spf=direct_senders(identity.domain, loaded))
    answers = await look_up(dns, identity.domain, records)
    checks = [check, *checkup_dns.records(domain, findings(records, answers))]
    if identity.verified:
        checks.append(checkup_dns.alignment(domain, identity))
    return checks


async def _login(loaded: Loaded, name: str) -> list[Check]:
    config = _config(loaded, name)
    assert isinstance(config, configured.SmtpTransport)
    return await checkup_login.relay(name, relay_options(config, loaded), SystemClock(), ses=leads_to_ses(config))


async def _direct(loaded: Loaded, name: str, domains: Sequence[str], nameservers: Sequence[str]) -> list[Check]:
    config = _config(loaded, name)
    assert isinstance(config, configured.DirectTransport)
    senders = _senders_by(loaded, name, domains)
    dns = Dns(nameservers or config.nameservers)
    host = DirectHost(
        loaded.config.hostname, checkup_dns.addresses(config.source_address), config.port, config.allow_private_addresses
    )
    looks: list[Coroutine[None, None, list[Check]]] = [checkup_dns.host(dns, host)]
    levels = {config.tls, *config.tls_policy.values()}
    if levels & {"dane", "mta-sts"}:  # by the daemon's own name servers, whichever doctor is to ask
        looks.append(checkup_dns.dnssec(name, config.nameservers, SystemClock(), wanted="dane" in levels))
    looks += [checkup_dns.direct_domain(dns, domain, host, _signing(config, domain)) for domain in senders]
    own = (loaded.local.domain, loaded.config.hostname)
    tried = dict.fromkeys((*senders, *own, *(parent for name in own for parent in parents(name))))
    looks.append(checkup_dns.port_25(dns, tuple(tried), host))
    return await _together(looks)


async def _together(looks: Iterable[Coroutine[None, None, list[Check]]]) -> list[Check]:
    """Return what all of them find, in their order: a name server that does not answer is waited for by many at once."""
    some = asyncio.Semaphore(AT_ONCE)

    async def take(look: Coroutine[None, None, list[Check]]) -> list[Check]:
        async with some:
            return await look

    return [check for found in await asyncio.gather(*map(take, looks)) for check in found]


def _signing(config: configured.DirectTransport, domain: str) -> list[SigningKey]:
    from sesrelay.config.dkim_keys import read_key
    from sesrelay.mail.dkim import record, record_name

    found = []
    for entry in config.dkim.get(domain, ()):
        key = read_key(entry.key_file, os.environ)
        found.append(SigningKey(record_name(domain, entry.selector), record(key.algorithm, key.public)))
    return found

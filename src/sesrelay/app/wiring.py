"""From the configuration to what each room wants to be told: the one place that translates between them.

The ways out, which are the larger part of it, are made in `ways_out`.
"""

from __future__ import annotations

from collections.abc import Mapping

from sesrelay.app.places import undeliverable_path
from sesrelay.app.ses_access import leads_to_ses
from sesrelay.app.ways_out import Shared, spare, way_out
from sesrelay.config import transports as configured
from sesrelay.config.certificates import wrong_with_certificate
from sesrelay.config.loading import Loaded
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.listener.options import DoorOptions, ListenerOptions
from sesrelay.listener.passwords import Users
from sesrelay.listener.peer import prove_owners
from sesrelay.listener.tls import server_context
from sesrelay.policy.budget import COPIES_IN, COPIES_OUT
from sesrelay.policy.ladder import FOLDER, Ladder
from sesrelay.policy.retry import RetryPolicy
from sesrelay.policy.session_rules import SessionRules
from sesrelay.seams import Preflight
from sesrelay.transport.folder import FolderTransport
from sesrelay.web.options import WebOptions


def snapshot(loaded: Loaded, shared: Shared) -> Snapshot:
    """Make the engine's view of a configuration. Raises: OSError, ValueError for a file or option that cannot be used"""
    config, bounces = loaded.config, ladder(loaded)
    transports = {name: way_out(name, loaded, shared) for name in loaded.ways}
    if bounces.direct and bounces.direct not in transports:
        transports[bounces.direct] = spare(bounces.direct, loaded, shared)
    transports[FOLDER] = FolderTransport(FOLDER, undeliverable_path(config), config.hostname, shared.observer)
    return Snapshot(
        hostname=config.hostname,
        local=loaded.local,
        routing=loaded.routing,
        transports=transports,
        preflights={name: made.refusal for name, made in transports.items() if isinstance(made, Preflight)},
        retry=RetryPolicy(config.queue.retry, config.queue.max_age, config.queue.delay_warning),
        keep_delivered=config.queue.keep_delivered,
        ladder=bounces,
    )


def ladder(loaded: Loaded) -> Ladder:
    """Say what the rungs of a bounce's ladder are made of."""
    ways = loaded.config.transports
    ses = frozenset(name for name, way in ways.items() if leads_to_ses(way))
    direct = [name for name, way in ways.items() if way.type == "direct"]
    own = dict.fromkeys((loaded.local.domain, loaded.config.hostname))
    return Ladder(ses, "direct" if "direct" in direct else next(iter(direct), None), tuple(own))


def tariffs(configs: Mapping[str, configured.Transport]) -> dict[str, tuple[float, float]]:
    """Return what a thousand recipients and a gigabyte cost through each transport whose tariff is named."""
    ses = (configured.SesTransport, configured.SmtpTransport)
    named = {name: config.tariff for name, config in configs.items() if isinstance(config, ses)}
    return {name: (tariff.per_1000, tariff.per_gb) for name, tariff in named.items() if tariff}


def listener_options(loaded: Loaded) -> ListenerOptions:
    """Make the listener's view of a configuration. Raises: OSError, ValueError for a certificate that cannot be used, or a
    kernel that does not tell who owns a connection
    """
    config = loaded.config
    if config.access.local_users and any(not door.listen.startswith("unix:") for door in config.listeners):
        prove_owners()
    return ListenerOptions(
        hostname=config.hostname,
        local=loaded.local,
        networks=config.access.networks,
        asks_owners=bool(config.access.local_users),
        message_size=config.limits.message_size,
        recipients=config.limits.recipients,
        connections=config.limits.connections,
        connections_per_client=config.limits.connections_per_client,
        command_timeout=config.limits.command_timeout,
        doors={
            door.listen: DoorOptions(
                door.tls,
                door.auth,
                server_context(door.certificate, door.key) if door.certificate and door.key else None,
            )
            for door in config.listeners
        },
        users=Users({user.name: user.password_hash.get_secret_value() for user in config.access.users if user.password_hash}),
        rules=SessionRules(loaded.senders, loaded.routing),
    )


def stale_certificates(loaded: Loaded, now: float) -> list[str]:
    """Return what is wrong with the dates of the listeners' certificates, which keep nobody from starting."""
    certificates = dict.fromkeys(door.certificate for door in loaded.config.listeners if door.certificate)
    return [problem for certificate in certificates if (problem := wrong_with_certificate(certificate, now))]


def memory(loaded: Loaded) -> tuple[int, int, int]:
    """Return the figures of the ByteBudget: the whole, and what one largest message needs on its way in, and out."""
    limits = loaded.config.limits
    return limits.memory, COPIES_IN * limits.message_size, COPIES_OUT * limits.message_size


def web_options(loaded: Loaded, smtp: str | None) -> WebOptions:
    """`smtp`: where mail is taken, for the hint of an empty page."""
    config = loaded.config
    return WebOptions(
        host=config.http.address.host,
        port=config.http.address.port,
        token=config.http.token.get_secret_value() if config.http.token else None,
        hostname=config.hostname,
        allowed_hosts=config.http.allowed_hosts,
        smtp=smtp,
    )

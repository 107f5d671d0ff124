"""From the configuration to what each room wants to be told: the one place that translates between them.

Vendors are imported where a transport needs them, so that a relay without SES never loads boto3.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sesrelay.app.places import rejected_path, undeliverable_path
from sesrelay.config import transports as configured
from sesrelay.config.certificates import wrong_with_certificate
from sesrelay.config.dkim import Dkim
from sesrelay.config.loading import Loaded
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.listener.maildrop import LISTENER, Taken
from sesrelay.listener.options import DoorOptions, ListenerOptions
from sesrelay.listener.passwords import Users
from sesrelay.listener.peer import prove_owners
from sesrelay.listener.tls import server_context
from sesrelay.policy.budget import COPIES_IN, COPIES_OUT
from sesrelay.policy.ladder import FOLDER, Ladder
from sesrelay.policy.retry import RetryPolicy
from sesrelay.policy.session_rules import SessionRules
from sesrelay.seams import Clock, Observer, Preflight, SpoolAdmin, Transport
from sesrelay.transport.folder import FolderTransport, RejectedFolder
from sesrelay.web.options import WebOptions

if TYPE_CHECKING:
    from sesrelay.aws.session import Session, Sessions
    from sesrelay.transport.client.signing import KeysByDomain
    from sesrelay.transport.ses.account import Accounts
    from sesrelay.transport.ses.identities import Identities
    from sesrelay.transport.smtp.transport import SmtpOptions
    from sesrelay.transport.tls.mta_sts_cache import PolicyCache


@dataclass(slots=True)
class Shared:
    """What outlives a reload: AWS sessions, the connections and pace of each account, MTA-STS policies. Made when first wanted."""

    clock: Clock
    observer: Observer
    _sessions: Sessions | None = field(default=None, init=False)
    _accounts: Accounts | None = field(default=None, init=False)
    _policies: PolicyCache | None = field(default=None, init=False)

    def policies(self, state_dir: Path) -> PolicyCache:
        """Return the MTA-STS policies that are kept, in `state_dir` too."""
        from sesrelay.transport.tls.mta_sts_cache import PolicyCache

        self._policies = self._policies or PolicyCache(state_dir / "mta-sts.json")
        return self._policies

    def _session(self, config: configured.SesTransport) -> Session:
        """Return the AWS session of a transport. Raises: ValueError where the region is unknown"""
        from sesrelay.app.ses_access import source_of
        from sesrelay.aws.session import Sessions

        self._sessions = self._sessions or Sessions(self.clock)
        return self._sessions.get(source_of(config))

    def _known_accounts(self) -> Accounts:
        from sesrelay.transport.ses.account import Accounts

        self._accounts = self._accounts or Accounts(self.clock)
        return self._accounts

    def ses(
        self, name: str, config: configured.SesTransport, local_domains: frozenset[str], rejected: RejectedFolder | None = None
    ) -> Transport:
        from sesrelay.transport.ses.seam import SesOptions
        from sesrelay.transport.ses.transport import SesTransport

        session = self._session(config)
        options = SesOptions(
            region=session.region,
            endpoint_url=config.endpoint_url,
            api=config.api,
            configuration_set=config.configuration_set,
            tags=config.tags,
            source_arn=config.source_arn,
            from_arn=config.from_arn,
            return_path_arn=config.return_path_arn,
            tenant=config.tenant,
            endpoint_id=config.endpoint_id,
            contact_list=config.list_management.contact_list if config.list_management else None,
            topic=config.list_management.topic if config.list_management else None,
            feedback_forwarding=config.feedback_forwarding,
            share=config.share,
            daily_reserve=config.daily_reserve,
            rate=_rate(config),
            trusted_headers=config.trusted_headers,
            thread_ids=config.thread_ids,
            rewrite_from=config.rewrite_from,
            preflight=config.preflight,
            failover_after=config.failover_after,
            local_domains=local_domains,
        )
        keep = rejected.keep if rejected else None
        return SesTransport(name, options, session, self._known_accounts(), self.clock, self.observer, keep)

    def identities(self, name: str, config: configured.SmtpTransport, source: configured.Transport | None) -> Identities | None:
        """Return who is verified, by the keys of the transport that `identities_from` names; None where none is named."""
        if not isinstance(source, configured.SesTransport) or not (config.preflight or config.rewrite_from):
            return None
        from sesrelay.transport.ses.identities import CANNOT_LIST, LIST_REMEDY, Identities

        trouble = partial(self.observer.trouble, CANNOT_LIST, transport=name, remedy=LIST_REMEDY)
        return Identities(self._session(source).identities, self.clock, trouble)

    def paced(
        self,
        way: Transport,
        config: configured.SmtpTransport,
        known: Identities | None = None,
        rejected: RejectedFolder | None = None,
    ) -> Transport:
        """Return a way out by SMTP that keeps to the pace of its SES account, or to the rate that the configuration names."""
        from sesrelay.policy.ses_hosts import region_of

        region = region_of(config.relays[0])
        if region is None and config.rate is None:
            return way
        from sesrelay.aws import number
        from sesrelay.transport.smtp.paced import PacedSmtp

        # The user name of SES's SMTP is the id of an access key, and tells the account like one.
        who = number.of_key(config.username) or config.username or config.relays[0]
        budget = self._known_accounts().ledger(region or "", who)
        refuses = config.preflight and config.rewrite_from is None
        return PacedSmtp(
            way, budget, _rate(config), region is not None, config.share, config.daily_reserve, known, refuses, region or "",
            rejected.keep if rejected else None,
        )  # fmt: skip

    def retain(self, configs: Iterable[configured.Transport]) -> None:
        """Forget the sessions and the paces that no transport of the configuration uses any more."""
        known = [config for config in configs if isinstance(config, configured.SesTransport | configured.SmtpTransport)]
        if self._accounts is not None:
            self._accounts.retain({(_rate(config), config.share) for config in known})
        if self._sessions is not None:
            from sesrelay.app.ses_access import source_of

            self._sessions.retain([source_of(config) for config in known if isinstance(config, configured.SesTransport)])

    async def close(self) -> None:
        if self._accounts is not None:
            await self._accounts.close()
        if self._sessions is not None:
            self._sessions.close()


def snapshot(loaded: Loaded, shared: Shared) -> Snapshot:
    """Make the engine's view of a configuration. Raises: OSError, ValueError for a file or option that cannot be used"""
    config, bounces = loaded.config, ladder(loaded)
    transports = {name: transport(name, config.transports[name], loaded, shared) for name in loaded.ways}
    if bounces.direct and bounces.direct not in transports:
        transports[bounces.direct] = _spare(bounces.direct, config.transports[bounces.direct], loaded, shared)
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
    from sesrelay.app.ses_access import leads_to_ses

    ways = loaded.config.transports
    ses = frozenset(name for name, way in ways.items() if leads_to_ses(way))
    direct = [name for name, way in ways.items() if way.type == "direct"]
    own = dict.fromkeys((loaded.local.domain, loaded.config.hostname))
    return Ladder(ses, "direct" if "direct" in direct else next(iter(direct), None), tuple(own))


def transport(name: str, config: configured.Transport, loaded: Loaded, shared: Shared) -> Transport:
    """Make one way out."""
    hostname = loaded.config.hostname
    rejected = RejectedFolder(rejected_path(loaded.config), hostname, shared.observer)
    match config:
        case configured.SesTransport():
            return shared.ses(name, config, loaded.stood_in_for, rejected)
        case configured.SmtpTransport():
            from sesrelay.policy.ses_senders import nobody_knows
            from sesrelay.policy.ses_shape import Rules
            from sesrelay.transport.smtp.for_ses import Shaping
            from sesrelay.transport.smtp.transport import SmtpTransport

            source = loaded.config.transports.get(config.identities_from or "")
            known = shared.identities(name, config, source)
            shaping = Shaping(
                Rules(rewrite_from=config.rewrite_from), known.verified if known else nobody_knows, loaded.stood_in_for
            )
            relay = replace(relay_options(config, loaded), shaping=shaping)
            return shared.paced(SmtpTransport(name, relay, shared.clock), config, known, rejected)
        case configured.DirectTransport():
            from sesrelay.transport.direct.transport import DirectOptions, DirectTransport

            direct = DirectOptions(
                hostname, config.port, config.tls, config.nameservers, config.allow_private_addresses, config.source_address, config.ca_file,
                address_families=config.address_families,
                race_addresses=config.race_addresses,
                failover_after=config.failover_after, dkim=_dkim(config.dkim),
                tls_by_domain=config.tls_policy, policies=shared.policies(loaded.config.state_dir),
                policy_port=config.policy_port, tlsrpt_socket=config.tlsrpt_socket,
            )  # fmt: skip
            return DirectTransport(name, direct, shared.clock, shared.observer)
        case configured.HoldTransport():
            from sesrelay.transport.hold import HoldTransport

            return HoldTransport(name)
        case configured.DiscardTransport():
            from sesrelay.transport.discard import DiscardTransport

            return DiscardTransport(name)


def _spare(name: str, config: configured.Transport, loaded: Loaded, shared: Shared) -> Transport:
    """Make the way out that bounces alone may take: later, where nothing is configured that could be wrong."""
    from sesrelay.transport.direct.spare import SpareTransport

    if isinstance(config, configured.DirectTransport) and config == configured.DirectTransport(type="direct"):
        return SpareTransport(name, config.failover_after, lambda: transport(name, config, loaded, shared))
    return transport(name, config, loaded, shared)


def relay_options(config: configured.SmtpTransport, loaded: Loaded) -> SmtpOptions:
    """Return how a relay is reached. Raises: ValueError for a key that cannot sign"""
    from sesrelay.transport.smtp.transport import SmtpOptions

    password = config.password.get_secret_value() if config.password else None
    return SmtpOptions(
        config.relays, loaded.config.hostname, config.port, config.tls, config.username, password, config.ca_file,
        token=_token(config),
        tls_name=config.tls_name,
        tls_fingerprints=frozenset(config.tls_fingerprints),
        nameservers=config.nameservers,
        source_address=config.source_address,
        rewrite_sender=config.rewrite_sender,
        failover_after=config.failover_after, dkim=_dkim(config.dkim),
    )  # fmt: skip


def _rate(config: configured.SesTransport | configured.SmtpTransport) -> float | Literal["auto"]:
    return "auto" if config.rate is None else config.rate


def _token(config: configured.SmtpTransport) -> Callable[[], str] | None:
    """Return what reads the access token of a relay when it is wanted: who renews it writes the file anew."""
    file, fixed = config.token_file, config.token
    if file is not None:
        return lambda: file.read_text(encoding="utf-8").strip()
    return fixed.get_secret_value if fixed else None


def _dkim(config: Dkim) -> KeysByDomain:
    """Read the keys that sign. Raises: ValueError for one that cannot"""
    if not config:
        return {}
    from sesrelay.config.dkim_keys import read_key
    from sesrelay.mail.dkim import DkimKey

    found: dict[str, list[DkimKey]] = {}
    for domain, entries in config.items():
        for entry in entries:
            key = read_key(entry.key_file, os.environ)
            found.setdefault(domain, []).append(DkimKey(domain, entry.selector, key.algorithm, key.sign))
    return found


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


def taken_from_maildrop(spool: SpoolAdmin) -> Taken:
    """Return what tells the names of the sessions in which the maildrop has brought in a message."""

    async def taken(message_id: str) -> Collection[str]:
        found = [await spool.show(queue_id) for queue_id in await spool.find(message_id)] if message_id else []
        origins = [record.message.origin for record in found if record is not None]
        return {origin.helo for origin in origins if origin.listener == LISTENER}

    return taken


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

"""The ways out that a configuration names, each made from its options, and what they share over reloads.

Vendors are imported where a transport needs them, so that a relay without SES never loads boto3.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sesrelay.app.places import rejected_path
from sesrelay.app.ses_access import leads_to_ses, source_of
from sesrelay.config import transports as configured
from sesrelay.config.dkim import Dkim
from sesrelay.config.loading import Loaded
from sesrelay.policy.ses_hosts import region_of
from sesrelay.seams import Clock, Observer, Transport
from sesrelay.transport.folder import RejectedFolder

if TYPE_CHECKING:
    from sesrelay.aws.session import Session, Sessions
    from sesrelay.transport.client.signing import KeysByDomain
    from sesrelay.transport.ses.account import Accounts
    from sesrelay.transport.ses.identities import Identities
    from sesrelay.transport.ses.transport import Keep
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

    def session(self, config: configured.SesTransport) -> Session:
        """Return the AWS session of a transport. Raises: ValueError where the region is unknown"""
        from sesrelay.aws.session import Sessions

        self._sessions = self._sessions or Sessions(self.clock)
        return self._sessions.get(source_of(config))

    def accounts(self) -> Accounts:
        """Return the SES accounts, and relays with a rate, that mail leaves by."""
        from sesrelay.transport.ses.account import Accounts

        self._accounts = self._accounts or Accounts(self.clock)
        return self._accounts

    def retain(self, configs: Iterable[configured.Transport]) -> None:
        """Forget the sessions and the paces that no transport of the configuration uses any more."""
        known = [config for config in configs if isinstance(config, configured.SesTransport | configured.SmtpTransport)]
        if self._accounts is not None:
            self._accounts.retain({(_rate(config), config.share) for config in known})
        if self._sessions is not None:
            self._sessions.retain([source_of(config) for config in known if isinstance(config, configured.SesTransport)])

    async def close(self) -> None:
        if self._accounts is not None:
            await self._accounts.close()


def way_out(name: str, loaded: Loaded, shared: Shared) -> Transport:
    """Make the transport of that name. Raises: OSError, ValueError for a file or option that cannot be used"""
    match loaded.config.transports[name]:
        case configured.SesTransport() as config:
            return ses(name, config, shared, loaded.stood_in_for, _keep_rejected(loaded, shared))
        case configured.SmtpTransport() as config:
            return _smtp(name, config, loaded, shared)
        case configured.DirectTransport() as config:
            return _direct(name, config, loaded, shared)
        case configured.HoldTransport():
            from sesrelay.transport.hold import HoldTransport

            return HoldTransport(name)
        case configured.DiscardTransport():
            from sesrelay.transport.discard import DiscardTransport

            return DiscardTransport(name)


def spare(name: str, loaded: Loaded, shared: Shared) -> Transport:
    """Make the way out that bounces alone may take: later, where nothing is configured that could be wrong. Raises: as `way_out`"""
    from sesrelay.transport.direct.spare import SpareTransport

    config = loaded.config.transports[name]
    if config == configured.DirectTransport(type="direct"):
        return SpareTransport(name, config.failover_after, lambda: way_out(name, loaded, shared))
    return way_out(name, loaded, shared)


# --- SES by its API ---


def ses(name: str, config: configured.SesTransport, shared: Shared, local_domains: frozenset[str], keep: Keep | None) -> Transport:
    """Make a way out by SES's API. `keep` gets what SES rejects. Raises: ValueError where the region is unknown"""
    from sesrelay.transport.ses.seam import SesOptions
    from sesrelay.transport.ses.transport import SesTransport

    try:
        session = shared.session(config)
    except ValueError as error:
        raise ValueError(f"transports.{name}: {error}") from error
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
    return SesTransport(name, options, session, shared.accounts(), shared.clock, shared.observer, keep)


def _keep_rejected(loaded: Loaded, shared: Shared) -> Keep:
    return RejectedFolder(rejected_path(loaded.config), loaded.config.hostname, shared.observer).keep


# --- relays by SMTP, SES's endpoint among them ---


def _smtp(name: str, config: configured.SmtpTransport, loaded: Loaded, shared: Shared) -> Transport:
    from sesrelay.policy.ses_senders import nobody_knows
    from sesrelay.policy.ses_shape import Rules
    from sesrelay.transport.smtp.for_ses import Shaping
    from sesrelay.transport.smtp.transport import SmtpTransport

    known = _identities(name, config, loaded.config.transports.get(config.identities_from or ""), shared)
    shaping = Shaping(Rules(rewrite_from=config.rewrite_from), known.verified if known else nobody_knows, loaded.stood_in_for)
    relay = SmtpTransport(name, replace(relay_options(config, loaded), shaping=shaping), shared.clock)
    return paced(relay, config, shared, known, _keep_rejected(loaded, shared))


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
        ses=leads_to_ses(config),
        failover_after=config.failover_after, dkim=_dkim(config.dkim),
    )  # fmt: skip


def _identities(
    name: str, config: configured.SmtpTransport, source: configured.Transport | None, shared: Shared
) -> Identities | None:
    """Return who is verified, by the keys of the transport that `identities_from` names; None where none is named."""
    if not isinstance(source, configured.SesTransport) or not (config.preflight or config.rewrite_from):
        return None
    from sesrelay.transport.ses.identities import CANNOT_LIST, Identities, list_remedy

    def trouble(error: Exception) -> None:
        shared.observer.trouble(CANNOT_LIST, error, transport=name, remedy=list_remedy(error))

    session = shared.session(source)
    return Identities(session.identities, shared.clock, trouble, session.last_listed)


def paced(
    relay: Transport, config: configured.SmtpTransport, shared: Shared, known: Identities | None, keep: Keep | None
) -> Transport:
    """Return a way out by SMTP that keeps to the pace of its SES account, or to the rate that the configuration names.

    `keep` gets what SES rejects.
    """
    region = region_of(config.relays[0])
    if region is None and config.rate is None:
        return relay
    from sesrelay.aws import number
    from sesrelay.transport.smtp.paced import PacedSmtp

    # The user name of SES's SMTP is the id of an access key, and tells the account like one.
    who = number.of_key(config.username) or config.username or config.relays[0]
    ledger = shared.accounts().ledger(region or "", who)
    refuses = config.preflight and config.rewrite_from is None
    return PacedSmtp(relay, ledger, _rate(config), region, config.share, config.daily_reserve, known, refuses, keep)


def _token(config: configured.SmtpTransport) -> Callable[[], str] | None:
    """Return what reads the access token of a relay when it is wanted: who renews it writes the file anew."""
    file, fixed = config.token_file, config.token
    if file is not None:
        return lambda: file.read_text(encoding="utf-8").strip()
    return fixed.get_secret_value if fixed else None


# --- straight to mail hosts ---


def _direct(name: str, config: configured.DirectTransport, loaded: Loaded, shared: Shared) -> Transport:
    from sesrelay.transport.direct.transport import DirectOptions, DirectTransport

    options = DirectOptions(
        loaded.config.hostname, config.port, config.tls, config.nameservers, config.allow_private_addresses, config.source_address,
        config.ca_file,
        address_families=config.address_families,
        race_addresses=config.race_addresses,
        failover_after=config.failover_after, dkim=_dkim(config.dkim),
        tls_by_domain=config.tls_policy, policies=shared.policies(loaded.config.state_dir),
        policy_port=config.policy_port, tlsrpt_socket=config.tlsrpt_socket,
    )  # fmt: skip
    return DirectTransport(name, options, shared.clock, shared.observer)


# --- what several kinds have ---


def _rate(config: configured.SesTransport | configured.SmtpTransport) -> float | Literal["auto"]:
    return "auto" if config.rate is None else config.rate


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

"""Which transport a key is for, where it is kept, and with whose credentials its IAM user is managed."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesrelay.cli.remedies import fail
from sesrelay.cli.ses import Wish, configuration

if TYPE_CHECKING:
    from sesrelay.aws.clients import Clients
    from sesrelay.aws.session import Source
    from sesrelay.config.loading import Loaded
    from sesrelay.setup.key_files import KeyFiles

USER_MAX = 64  # characters, IAM


@dataclass(frozen=True, slots=True)
class KeyAccess:
    """`clients`: with the credentials that manage IAM. `source`: where SES is, for the proof of a key.

    `label`: the transport, or `ses` where there is none yet. `configured`: the key id in the configuration.
    `sender`: whom its routes let send.
    """

    clients: Clients
    source: Source
    loaded: Loaded | None
    label: str
    user: str
    files: KeyFiles
    configured: str | None
    sender: str | None
    by_smtp: bool = False
    secret_inside: str | None = None
    """The key that names a file for the secret, where the secret stands in the configuration instead."""

    @property
    def region(self) -> str:
        return self.source.region


def key_access(wish: Wish, out: Path | None) -> KeyAccess:
    """Return what concerns the key of the transport named, of type ses or smtp, or of the only one that leads to SES."""
    from sesrelay.app.ses_access import first_sender, leads_to_ses
    from sesrelay.aws.clients import Clients
    from sesrelay.aws.session import Source
    from sesrelay.config.transports import SesTransport, SmtpTransport
    from sesrelay.setup.key_files import KeyFiles

    loaded = configuration(wish.config)
    leading = {name: one for name, one in loaded.config.transports.items() if leads_to_ses(one)} if loaded else {}
    if wish.transport is not None and wish.transport not in leading:
        raise click.BadParameter(f"{wish.transport!r} is not a transport that leads to SES", param_hint="--transport")
    if wish.transport is None and len(leading) > 1:
        raise click.UsageError(f"Several transports lead to SES: choose one with --transport {'|'.join(leading)}")
    label = wish.transport or next(iter(leading), None)
    config = leading.get(label or "")
    try:
        own = _source(config, wish)
    except ValueError as error:
        fail(f"{error}, or use --region")
    inside = None
    files, configured = KeyFiles.named(out or wish.config.absolute().parent, label or "ses"), None
    if isinstance(config, SesTransport):
        files, configured = replace(files, secret=config.secret_access_key_file or files.secret), config.access_key_id
        inside = None if config.secret_access_key_file else "secret_access_key_file"
    elif isinstance(config, SmtpTransport):
        files, configured = replace(files, smtp_password=config.password_file or files.smtp_password), config.username
        inside = None if config.password_file else "password_file"
    managing = Source(own.region, profile=wish.profile) if wish.profile else own
    user = re.sub(r"[^A-Za-z0-9.-]", "-", f"sesrelay-{loaded.config.hostname if loaded else label or 'ses'}")[:USER_MAX]
    sender = first_sender(label, loaded) if loaded and label else None
    at = Source(own.region, endpoint_url=own.endpoint_url)
    return KeyAccess(
        Clients(managing), at, loaded, label or "ses", user, files, configured, sender, isinstance(config, SmtpTransport), inside
    )


def _source(config: object, wish: Wish) -> Source:
    from sesrelay.app.ses_access import source_of
    from sesrelay.aws.region import default_region
    from sesrelay.aws.session import Source
    from sesrelay.config.transports import SesTransport, SmtpTransport
    from sesrelay.policy.ses_hosts import region_of

    if isinstance(config, SesTransport):
        return source_of(config.model_copy(update={"region": wish.region or config.region}))
    if isinstance(config, SmtpTransport):
        told = next((region for host in config.relays if (region := region_of(host))), None)
        return Source(wish.region or told or default_region(wish.profile))
    return Source(wish.region or default_region(wish.profile))

"""`sesrelay credentials`: the IAM user of this relay, and its key in files that others cannot read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sesrelay.cli.iam_policy import sendings_or_exit
from sesrelay.cli.key_access import KeyAccess, key_access
from sesrelay.cli.options import EX_TEMPFAIL, reason
from sesrelay.cli.reload import end_interrupted
from sesrelay.cli.remedies import as_run, fail
from sesrelay.cli.ses import Wish, account_options, domains_option, refusals
from sesrelay.cli.words import seconds

if TYPE_CHECKING:
    from sesrelay.aws.iam_user import NewKey

GRACE = 10.0  # seconds from the reload to the end of the old key: calls that it has signed are answered meanwhile


@dataclass(frozen=True, slots=True)
class KeyWish:
    """Which user and which files somebody names on the command line."""

    user: str | None
    out: Path | None
    sender: str | None
    patience: float


def key_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb what names the user, its files and the proof of a key, passed as `keys: KeyWish`."""
    import functools

    @functools.wraps(function)
    def verb(user: str | None, out: Path | None, sender: str | None, patience: float, **rest: Any) -> Any:
        return function(keys=KeyWish(user, out, sender, patience), **rest)

    for option in (
        click.option(
            "--patience",
            default="60s",
            type=seconds,
            metavar="TIME",
            show_default=True,
            help="How long to wait until a new key can send.",
        ),
        click.option(
            "--from",
            "sender",
            metavar="ADDRESS",
            help="A verified sender for the test message. Default: postmaster of the first domain routed to SES.",
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="The folder for the files. Default: beside the configuration.",
        ),
        click.option("--user", metavar="NAME", help="The IAM user. Default: sesrelay-HOSTNAME"),
    ):
        verb = option(verb)
    return verb


@click.group("credentials")
def command() -> None:
    """Create or rotate the IAM user of this relay.

    The key is written to files of mode 0640 (NAME.access-key-id, NAME.secret and NAME.smtp-password) and never shown. For
    IAM you need an administrator's credentials: --profile NAME, or those that boto3 finds.
    """


@command.command("create")
@domains_option
@key_options
@account_options
def create(domains: tuple[str, ...], keys: KeyWish, wish: Wish) -> None:
    """Create the IAM user with the least-privilege policy for the configuration, an access key and its SMTP password."""
    from sesrelay.aws import iam_user
    from sesrelay.aws.policy import document
    from sesrelay.setup.key_files import store

    end_interrupted(wish.config, *((keys.out,) if keys.out else ()))
    sending = sendings_or_exit(wish.config, (wish.transport,) if wish.transport else (), domains, wish.region)
    used = key_access(wish, keys.out)
    name = keys.user or used.user
    there = [path for path in used.files.all if path.exists()]
    if there:
        fail(f"{there[0]} exists already; for a new key of the same user: sesrelay credentials rotate")
    _folder_or_exit(used)
    with refusals():
        user = iam_user.find_user(used.clients, name)
        if user is None:
            user = iam_user.create_user(used.clients, name)
        elif iam_user.keys(used.clients, name):
            fail(f"the IAM user {name} already has an access key; choose another user with --user, or delete that key")
        iam_user.put_policy(used.clients, user, document(sending, user.account_id))
        key = iam_user.create_key(used.clients, name)
        _or_without(used, name, key, lambda: store(used.files, key, used.region, wish.config))
    click.echo(f"{name} may send; its key is in {used.files.secret}, its SMTP password in {used.files.smtp_password}")
    click.echo(f"\ntransports:\n  {used.label}:")
    if used.by_smtp:
        click.echo(f"    username: {key.id}\n    password_file: {used.files.smtp_password}")
    else:
        click.echo(
            f"    type: ses\n    region: {used.region}\n    access_key_id: {key.id}\n"
            f"    secret_access_key_file: {used.files.secret}"
        )


@command.command("rotate")
@click.option("--finish", is_flag=True, help="Create no new key: test the key in the files, then delete all others.")
@click.option("--keep-old", is_flag=True, help="Keep the old key, because other hosts use it too; --finish deletes it later.")
@click.option(
    "--grace",
    default=f"{GRACE:.0f}s",
    type=seconds,
    metavar="TIME",
    show_default=True,
    help="How long to wait after the reload before the old key is deleted.",
)
@key_options
@account_options
def rotate(finish: bool, keep_old: bool, grace: float, keys: KeyWish, wish: Wish) -> None:
    """Replace the access key. The old key stays until the new one has sent a test message.

    The test message goes to SES's mailbox simulator. Then the new key is written to the files, and to the configuration where
    that names the old key; the daemon is reloaded, and the old key is deleted. If a step fails, the old key stays valid.
    """
    from sesrelay.aws import iam_user

    end_interrupted(wish.config, *((keys.out,) if keys.out else ()))
    used = key_access(wish, keys.out)
    name = keys.user or used.user
    sender = keys.sender or used.sender
    if sender is None:
        raise click.UsageError("No route shows which sender is verified: give one with --from.")
    with refusals():
        there = iam_user.keys(used.clients, name)
        old = used.configured or _kept(used)
        if finish:
            _finish(used, name, sender, keys.patience, [one.id for one in there])
            return
        if old is None or old not in [one.id for one in there]:
            fail(
                f"neither {used.files.key_id} nor the configuration names a key of {name}; start with: sesrelay credentials create"
            )
        if len(there) >= iam_user.KEYS_MAX:
            second = next(one.id for one in there if one.id != old)
            fail(
                f"{name} already has a second key, {second}, and IAM allows two; "
                "if nobody uses it: sesrelay credentials rotate --finish"
            )
        _folder_or_exit(used)
        _exchangeable_or_exit(used)
        key = iam_user.create_key(used.clients, name)
        _or_without(used, name, key, lambda: _prove_and_store(used, key, old, sender, keys.patience, wish.config))
        click.echo(f"the new key {key.id} works and is in {used.files.secret}")
        if keep_old:
            click.echo(as_run(f"the old key {old} stays; when no host uses it any more: sesrelay credentials rotate --finish"))
            return
        if not _reloaded(used, grace):
            fail(f"the old key {old} stays; reload the daemon, then: sesrelay credentials rotate --finish", EX_TEMPFAIL)
        iam_user.delete_key(used.clients, name, old)
    click.echo(f"the old key {old} was deleted")


def _prove_and_store(used: KeyAccess, key: NewKey, old: str, sender: str, patience: float, config: Path) -> None:
    from sesrelay.aws.iam_user import prove
    from sesrelay.setup.key_files import naming, store

    prove(used.source, key, sender, time.monotonic, time.sleep, patience)
    store(used.files, key, used.region, config, naming(old, key.id, used.loaded.files if used.loaded else ()))


def _finish(used: KeyAccess, name: str, sender: str, patience: float, there: list[str]) -> None:
    from sesrelay.aws.iam_user import delete_key, prove

    try:
        key = used.files.read()
    except OSError as error:
        fail(f"{reason(error)}; this file must contain the key to keep")
    if used.configured not in (None, key.id):
        fail(f"the configuration names {used.configured}, but {used.files.key_id} has {key.id}: nothing was deleted")
    prove(used.source, key, sender, time.monotonic, time.sleep, patience)
    if not _reloaded(used, 0.0):
        fail("the daemon may still use the old key: nothing was deleted", EX_TEMPFAIL)
    for other in there:
        if other != key.id:
            delete_key(used.clients, name, other)
            click.echo(f"{key.id} works; the old key {other} was deleted")


def _kept(used: KeyAccess) -> str | None:
    try:
        return used.files.current()
    except OSError as error:
        fail(reason(error))


def _folder_or_exit(used: KeyAccess) -> None:
    """Find out before anything is made in IAM whether files can be written."""
    import os

    folder = used.files.secret.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        fail(f"{folder} is not a writable folder; choose another with --out")


def _exchangeable_or_exit(used: KeyAccess) -> None:
    """Find out before anything is made in IAM whether the configuration would follow: its key id, and where its secret is."""
    from sesrelay.setup.key_files import naming

    if used.configured is None or used.loaded is None:
        return
    if used.secret_inside:
        fail(f"the secret of {used.label} is in the configuration itself; move it to a file ({used.secret_inside})")
    if not naming(used.configured, used.configured, used.loaded.files):
        fail(f"{used.configured} comes from the environment, where it cannot be replaced; write it into the configuration")


def _or_without(used: KeyAccess, name: str, key: NewKey, work: Callable[[], None]) -> None:
    """Do the work, or take the new key away again: a key that is nowhere kept is nobody's. Raises: AwsError

    What comes once it is kept, as Ctrl-C does, leaves it: the files and the configuration name no other.
    """
    from sesrelay.aws.iam_user import delete_key

    try:
        work()
    except BaseException as error:
        try:
            kept = used.files.current() == key.id
        except OSError:
            kept = True  # nobody knows: what the files name must not go
        if kept:
            told = (
                f"the new key {key.id} is in {used.files.secret}; when no other key is in use: sesrelay credentials rotate --finish"
            )
            click.echo(as_run(told), err=True)
        else:
            delete_key(used.clients, name, key.id)
        if isinstance(error, OSError):
            fail(reason(error) if kept else f"{reason(error)}; the new key was deleted again")
        raise


def _reloaded(used: KeyAccess, grace: float) -> bool:
    """Tell whether no daemon is left that goes on with the old key."""
    from sesrelay.app.operator import DaemonUnreachable, reload_daemon
    from sesrelay.control.client import ControlError

    if used.loaded is None:
        return True
    try:
        problems = asyncio.run(reload_daemon(used.loaded.config))
    except (DaemonUnreachable, ControlError, OSError) as error:
        click.echo(f"sesrelay: {error}", err=True)
        return False
    for problem in problems or ():
        click.echo(f"sesrelay: {problem}", err=True)
    if problems == []:
        time.sleep(grace)
    return not problems

"""The maildrop: a folder where a message waits for the daemon, durable and out of other users' reach.

A file there holds what a client would say from MAIL to the end mark, so one cut short shows. It is written under a name with a
leading dot, which the daemon passes over, and then renamed. The folder's set-group-ID bit gives it the daemon's group.

Invariant: a message is in the maildrop once `drop` has returned, whatever happens to the machine.

Source: RFC 2442 (the form, without the greeting).
"""

import os

from sesrelay.sendmail.client import Envelope
from sesrelay.sendmail.content import Content

FOLDER = "/var/spool/sesrelay/maildrop"
KEPT_FREE = 64 * 1024 * 1024  # octets of the disk that are not for mail
COMMANDS_MOST = 512 * 1024  # octets of a file before the content: half of what the daemon takes, as doubled dots count too
_AROUND = len("RCPT TO:<> NOTIFY=SUCCESS,FAILURE,DELAY\r\n")
MODE = 0o640  # for the group, which is the daemon's; nobody else
_OFFERS = {"8BITMIME": "", "SMTPUTF8": "", "DSN": ""}


def drop(envelope: Envelope, recipients: list[str], content: Content) -> tuple[list[str], str]:
    """Store the message for `recipients`, in several files where they are many; return who is left, and why."""
    folder = os.environ.get("SESRELAY_MAILDROP") or FOLDER
    if not os.path.isdir(folder):  # noqa: PTH112 - pathlib takes longer to import than all of this
        return recipients, f"and there is no maildrop {folder}"
    left = recipients
    try:
        while left:
            part = _part(left)
            kept = _kept(folder, envelope, part, content)
            if kept:
                return left, kept
            left = left[len(part) :]
    except OSError as error:
        return left, f"and the maildrop does not take it: {error}"
    return [], ""


def _part(recipients: list[str]) -> list[str]:
    """Return as many of the first as one file takes."""
    size = 0
    for n, address in enumerate(recipients):
        size += len(address.encode()) + _AROUND
        if n and size > COMMANDS_MOST:
            return recipients[:n]
    return recipients


def _kept(folder: str, envelope: Envelope, recipients: list[str], content: Content) -> str:
    """Store the message in one file; return an empty text, or why there is no room for it. Raises: OSError"""
    room = os.statvfs(folder)
    if room.f_bavail * room.f_frsize < content.size + KEPT_FREE:
        return f"and the disk of the maildrop {folder} is nearly full"
    _store(folder, envelope, recipients, content)
    return ""


def _store(folder: str, envelope: Envelope, recipients: list[str], content: Content) -> None:
    file, name = _new(folder)
    hidden, shown = f"{folder}/.{name}", f"{folder}/{name}"
    try:
        os.fchmod(file, MODE)  # whatever the umask is
        _write(file, b"".join(envelope.commands(recipients, content, _OFFERS)) + b"DATA\r\n")
        for piece in content.stuffed():
            _write(file, piece)
        os.fsync(file)
        os.rename(hidden, shown)  # noqa: PTH104
    except BaseException:
        os.unlink(hidden)  # noqa: PTH108
        raise
    _fsync_name(folder, file)
    os.close(file)


def _new(folder: str) -> tuple[int, str]:
    """Return a new file, opened, and the name that it will have. Raises: OSError"""
    name = f"{os.getpid()}-{os.urandom(8).hex()}"  # nobody guesses it, so nothing stands in its place
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(f"{folder}/.{name}", flags, MODE), name


def _fsync_name(folder: str, file: int) -> None:
    """Make the name durable.

    A user may not read the folder, and so not open it: then the file, whose inode the renaming changed, takes the name along
    (one transaction of the journal in ext4, XFS and btrfs).
    """
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        os.fsync(file)
        return
    os.fsync(opened)
    os.close(opened)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]

"""One file of the maildrop: whose it is, whether it can be trusted to be theirs, and what a client would have said.

A user may put anything under any name into that folder. Nothing here follows a link, waits for a pipe, or reads beyond a limit.

Invariant: who owns the file has made it: it has one name, and, where the folder gives its group to what is made in it, that
group, which a file that was moved there has not.

Source: RFC 2442 (the form, without the greeting); `sesrelay.sendmail.maildrop` writes them.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from hashlib import blake2b

from sesrelay.mail import headers

COMMANDS_MAX = 1024 * 1024  # octets before the content: some 20,000 recipients
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,79}\Z")
_DATA = b"\r\nDATA\r\n"
_END = b"\r\n.\r\n"


class Unfit(Exception):
    """The file is no message; the text says why. `worthless`: nor anything else that somebody would want to look at."""

    def __init__(self, why: str, *, worthless: bool = False) -> None:
        super().__init__(why)
        self.worthless = worthless


class TooLarge(Unfit):
    """There is more in the file than was to be read."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A message as dropped: command lines without their ends, the content as on the wire with the end mark.

    `digest` tells the file from any other of its name.
    """

    name: str
    uid: int
    mail: bytes
    recipients: tuple[bytes, ...]
    content: bytes
    message_id: str
    digest: str


def read(folder: str, name: str, limit: int) -> Dropped:
    """Return the message in a file. Units: `limit` octets of content. Raises: Unfit, OSError (FileNotFoundError: it has gone)"""
    if not _NAME.match(name):
        raise Unfit("its name is not one that sesrelay-sendmail uses")
    uid, data = _octets(folder, name, limit + COMMANDS_MAX)
    commands, found, content = data[: COMMANDS_MAX + len(_DATA)].partition(_DATA)
    if not found:
        raise Unfit("it has no DATA line, or too many recipients before it")
    content = data[len(commands) + len(_DATA) :]
    mail, *recipients = commands.split(b"\r\n")
    if not mail.upper().startswith(b"MAIL FROM:") or not recipients:
        raise Unfit("it does not begin with MAIL and RCPT lines")
    if not all(line.upper().startswith(b"RCPT TO:") for line in recipients):
        raise Unfit("there are lines other than RCPT before DATA")
    # In a session, what stands behind an early end mark would be commands.
    end = 0 if content.startswith(_END[2:]) else content.find(_END) + 2
    if end + len(_END) - 2 != len(content):
        raise Unfit("its content is truncated, or continues after its end")
    message_id = headers.facts(content[: headers.head_length(content)]).message_id
    return Dropped(name, uid, mail, tuple(recipients), content, message_id, blake2b(data, digest_size=8).hexdigest())


def _octets(folder: str, name: str, limit: int) -> tuple[int, bytes]:
    """Return owner and content of a file that is what it seems. Raises: Unfit, OSError"""
    path = f"{folder}/{name}"
    made_here = os.stat(folder)  # noqa: PTH116 - names here may be any octets
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise Unfit(f"it cannot be read ({error.strerror}): the folder must have mode 3733 and the daemon's group") from error
    except OSError as error:
        if not _is_no_file(path):
            raise  # a fault of ours, such as no descriptor left, or of the disk: it waits
        raise Unfit(f"it cannot be opened ({error.strerror})", worthless=True) from error
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise Unfit("it is not a regular file", worthless=not stat.S_ISDIR(found.st_mode))
        if found.st_nlink != 1:
            raise Unfit("it has a second name (a hard link)", worthless=True)
        if made_here.st_mode & stat.S_ISGID and found.st_gid != made_here.st_gid:
            raise Unfit("it was created elsewhere and moved here: its group is not the folder's")
        if found.st_size > limit:
            raise TooLarge(f"it has {found.st_size} octets, and limits.message_size allows {limit - COMMANDS_MAX} of content")
        parts: list[bytes] = []
        size = 0
        while size <= limit and (part := os.read(file, 1 << 20)):
            parts.append(part)
            size += len(part)
        if size > limit:
            raise TooLarge("it grew while it was read")
        return found.st_uid, b"".join(parts)
    finally:
        os.close(file)


def _is_no_file(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.lstat(path).st_mode) and not stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False

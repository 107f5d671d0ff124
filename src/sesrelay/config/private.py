"""Private files: where one is that a configuration names, and that no stranger can read it.

Source: systemd.exec(5), CREDENTIALS.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

SECRET_MAX = 64 * 1024  # octets; no password is longer
OTHERS = 0o007  # the mode bits of those who are neither owner nor group


SERVICE = Path("/run/credentials/sesrelay.service")
"""Where root finds the credentials of the service while it runs: for verbs, which systemd hands none."""


def locate(name: str, folder: Path, environ: Mapping[str, str]) -> Path:
    """Return the file that `name` means: absolute, a systemd credential, below `folder`, or a credential of the service."""
    beside, credentials = folder / name, environ.get("CREDENTIALS_DIRECTORY")
    if Path(name).is_absolute():
        return beside
    if credentials:
        candidate = Path(credentials) / name
        return candidate if _there(candidate) else beside
    return SERVICE / name if not _there(beside) and _there(SERVICE / name) else beside


def _there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # a folder on the way is another user's
        return False


def exposed(file: str | Path, mode: int, environ: Mapping[str, str]) -> bool:
    """Tell whether others can read the file; systemd guards its credentials by the folder, not by the mode."""
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    # abspath follows no symlinks.
    if credentials and Path(os.path.abspath(file)).is_relative_to(os.path.abspath(credentials)):  # noqa: PTH100
        return False
    return bool(mode & OTHERS)


def read_regular(file: Path, most: int) -> tuple[bytes, int]:
    """Return what a file holds, at most one octet more than `most`, and its mode.

    Raises: OSError; ValueError for what cannot be a file's name
    """
    # O_NONBLOCK: a FIFO in its place must not hold up the start.
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:  # noqa: PTH123  # from a descriptor
        mode = os.fstat(stream.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return stream.read(most + 1), mode


def read_private(file: Path, environ: Mapping[str, str]) -> bytes | str:
    """Return what a file holds that is nobody else's to read, or what is wrong with it."""
    try:
        data, mode = read_regular(file, SECRET_MAX)
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    except ValueError:
        return "not possible in the name of a file"
    if exposed(file, mode, environ):
        return f"other users can access the secret in {file}, mode {stat.S_IMODE(mode):04o} (chmod o-rwx {file})"
    if len(data) > SECRET_MAX:
        return f"{file} is larger than {SECRET_MAX // 1024} KiB (use a file with nothing but the secret)"
    return data

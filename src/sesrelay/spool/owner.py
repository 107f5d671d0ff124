"""The owner of a store's files: also those that root makes go to the owner of their folder, so that the daemon can use them."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def anybodys(path: Path) -> bool:
    """Tell whether every user of the machine may write to a file, or to a folder, and so replace what is in it. Raises: OSError"""
    return bool(path.stat().st_mode & stat.S_IWOTH)


def give_to_owner(folder: Path, made: int) -> None:
    """Give what was made in `folder`, an open descriptor, to the folder's owner. Nothing where we are not root. Raises: OSError"""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(made, owner.st_uid, owner.st_gid)

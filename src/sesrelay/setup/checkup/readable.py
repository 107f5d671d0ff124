"""Whether the relay's user may read what the configuration names: root, who writes and checks it, may read everything."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sesrelay.config.loading import Loaded
from sesrelay.config.private import SERVICE
from sesrelay.setup.checkup.check import Check, fail, ok, warn
from sesrelay.setup.checkup.disk import group_of, may, name_of, relay_user
from sesrelay.spool.owner import anybodys

_NAMED = ("certificate", "key")
ACL = "system.posix_acl_access"  # acl(5): with one, the group's bits of the mode are a mask


def configuration(loaded: Loaded, pid: int | None) -> Check:
    """Tell what of the configuration the relay cannot read or everybody may write, or that it has no problem.

    `pid`: see `disk`.
    """
    main = loaded.files[0]
    uid = relay_user(loaded.config.state_dir, pid)
    for file in dict.fromkeys((*loaded.files, *_named(loaded.config.model_dump()))):
        shut = None if uid is None or file.is_relative_to(SERVICE) else _shut(file, uid)
        if uid is not None and shut is not None:
            remedy = f"chgrp {group_of(uid)} {shut} && chmod g+r {shut}"
            if shut.is_dir():
                remedy = f"move the file to {main.absolute().parent}, or: chmod o+x {shut}"
            told = f"{file}: {name_of(uid)} cannot read it, so the relay can neither start nor reload"
            return fail("configuration", str(main), told, remedy)
    for file in loaded.files:
        if anybodys(file):
            told = f"every user of this machine can change {file}, and so redirect mail"
            return warn("configuration", str(main), told, f"chmod o-w {file}")
    return ok("configuration", str(main), f"{len(loaded.files) - 1} site files, no problem")


def _named(document: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the files that the configuration names in any depth."""
    for key, value in document.items():
        if isinstance(value, str | Path) and Path(value).is_absolute() and (key.endswith("_file") or key in _NAMED):
            yield Path(value)
        for below in value if isinstance(value, list | tuple) else (value,):
            if isinstance(below, Mapping):
                yield from _named(below)


def _shut(file: Path, uid: int) -> Path | None:
    """Return the file or the folder on the way to it that keeps this user out; None: nothing does, or modes alone do not tell."""
    try:
        real = file.resolve()
        for place, wanted in [*((folder, stat.S_IXOTH) for folder in reversed(real.parents)), (real, stat.S_IROTH)]:
            if not may(place.stat(), uid, wanted):
                return None if ACL in os.listxattr(place) else place
    except OSError:
        pass
    return None

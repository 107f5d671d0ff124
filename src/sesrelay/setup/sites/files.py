"""Site files on disk: `sites.d/NAME.yaml` beside the main file, written and removed as a whole or not at all.

Invariant: a file comes into being only after the whole configuration was read with it and had no problem, its own
expectations among them; until then nothing on disk has changed.
Invariant: two verbs at once do not undo each other's work: the folder of the configuration is locked meanwhile.

Source: rename(2), and fsync of the folder for its durability.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sesrelay.config.document import Document, parse
from sesrelay.config.loading import load
from sesrelay.config.problem import ConfigError
from sesrelay.config.sites import FOLDER, site_files
from sesrelay.setup.files import NewFile, sync, write_files
from sesrelay.setup.sites.site import Site, compose


class SiteExists(Exception):
    """There is a site of that name already."""


class NoSuchSite(Exception):
    """There is no site of that name."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A site as its file has it. `transports`: those of its routes, to their `type` where the site brings them itself.

    `readable` False: the file has mistakes, and what could be read is told.
    """

    name: str
    file: Path
    senders: tuple[str, ...]
    transports: Mapping[str, str | None]
    local_users: tuple[str, ...]
    readable: bool


def place_of(config: Path, name: str) -> Path:
    """Return where the file of the site `name` is or would be."""
    return config.parent / FOLDER / f"{name}.yaml"


def secret_place(config: Path, name: str) -> Path:
    """Return where a secret that a verb was given on stdin is kept."""
    return config.parent / FOLDER / f"{name}.secret"


def add(config: Path, sites: Sequence[Site], *, replace: bool = False) -> list[Path]:
    """Write the files of `sites`, all or none, and return them.

    Raises: SiteExists, ConfigError with every problem that the configuration would have, OSError
    """
    folder = config.parent / FOLDER
    with _locked(config.parent):
        files = {place_of(config, site.name): compose(site) for site in sites}
        for file in files:
            if file.exists() and not replace:
                raise SiteExists(str(file))
        secrets = {folder / secret.name: f"{secret.text}\n" for site in sites for secret in site.secrets if secret.text is not None}
        new = {**secrets, **files}
        load(config, proposed={file: text.encode() for file, text in new.items()})
        if not folder.exists():
            folder.mkdir(mode=0o700)
            _own(folder, config)
            folder.chmod(0o750)  # whatever the umask, as the files in it are 0640
        write_files([NewFile(file, text, config) for file, text in new.items()])
        for site in sites:
            if secret_place(config, site.name) not in secrets:
                secret_place(config, site.name).unlink(missing_ok=True)  # of the site whose place this one takes
    return list(files)


def remove(config: Path, name: str) -> Path:
    """Remove the file of the site `name`, with the secret that was kept for it, and return it.

    Raises: NoSuchSite; ConfigError where the rest of the configuration needs the site; OSError
    """
    file = place_of(config, name)
    if not file.exists():
        raise NoSuchSite(str(file))
    with _locked(config.parent):
        before = _problems(config, {})
        new = [problem for problem in _problems(config, {file: None}) if problem not in before]
        if new:
            raise ConfigError(new)
        file.unlink()
        secret_place(config, name).unlink(missing_ok=True)
        sync(file.parent)
    return file


def listed(config: Path) -> Iterator[Listed]:
    """Yield the sites in the order in which their files are read. Raises: OSError"""
    for file in site_files(config):
        document = parse(file.read_bytes(), str(file), os.environ)
        yield Listed(
            file.stem,
            file,
            tuple(_texts(document, "routes", "sender")),
            _ways(document),
            tuple(_mapping(document.get(("access", "local_users")))),
            not document.problems,
        )


def _own(file: Path, like: Path) -> None:
    """Give a new folder to those who have `like`, so that the daemon can read one as the other; only root can."""
    if os.geteuid() == 0 and like.exists():
        owner = like.stat()
        os.chown(file, owner.st_uid, owner.st_gid)


def _problems(config: Path, proposed: dict[Path, bytes | None]) -> tuple[Any, ...]:
    try:
        load(config, proposed=proposed)
    except ConfigError as error:
        return error.problems
    return ()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _texts(document: Document, section: str, key: str) -> Iterator[str]:
    entries = document.root.get(section)
    for index in range(len(entries) if isinstance(entries, list) else 0):
        yield from (text for _, text in document.texts((section, index, key)))


def _ways(document: Document) -> dict[str, str | None]:
    kinds = {name: document.get(("transports", name, "type")) for name in _texts(document, "routes", "transport")}
    return {name: kind if isinstance(kind, str) else None for name, kind in kinds.items()}


def _mapping(value: object) -> tuple[str, ...]:
    return tuple(str(key) for key in value) if isinstance(value, dict) else ()

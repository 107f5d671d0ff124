"""Finds the programs of other projects that tests talk to: on the machine, or unpacked under .cache/peers.

Invariant: a test whose program is missing skips with the reason on a user's machine and fails where CI=true, so that a
green run there means that everything ran.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "peers"
ROOT, APART = CACHE / "root", CACHE / "apart"  # see fetch_peers.py
PLACES = ("usr/bin", "usr/sbin", "bin", "sbin")

# The machine's own, with the Debian package of each: these run where they are installed, and nowhere else. Another package may have
# had one of them unpacked beside it.
OWN = {
    "bash": "bash",
    "chromium": "chromium",
    "git": "git",
    "node": "nodejs",
    "openssl": "openssl",
    "perl": "perl",
    "systemd-analyze": "systemd",
    "systemd-socket-activate": "systemd",
    "systemd-sysusers": "systemd",
    "systemd-tmpfiles": "systemd",
}


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run: `command("-x")` is its argv, `env` the whole environment it wants."""

    path: Path
    env: Mapping[str, str]
    first: tuple[str, ...] = ()

    def command(self, *args: str | Path) -> list[str]:
        """Return argv with these arguments."""
        return [str(self.path), *self.first, *map(str, args)]

    @property
    def unpacked(self) -> bool:
        """Tell whether it is not the machine's own."""
        return self.path.is_relative_to(CACHE)


def library_path(root: Path = ROOT) -> str:
    """Return LD_LIBRARY_PATH for what is unpacked under `root`."""
    folders = [root / "usr/lib/postfix", root / "usr/lib"]
    for place in (root, APART):  # what one of them lacks may have been unpacked into the other
        folders += [*sorted(place.glob("usr/lib/*-linux-gnu*")), *sorted(place.glob("lib/*-linux-gnu*"))]
    return ":".join(str(folder) for folder in folders if folder.is_dir())


def environment(root: Path = ROOT) -> dict[str, str]:
    """Return our environment with the libraries and Perl modules under `root` added."""
    env = dict(os.environ)
    perl = [
        *root.glob("usr/share/perl5"),
        *root.glob("usr/lib/*/perl5/5.*"),
        *root.glob("usr/share/perl/5.*"),
        *root.glob("usr/lib/*/perl/5.*"),
    ]
    for name, extra in (("LD_LIBRARY_PATH", library_path(root)), ("PERL5LIB", ":".join(map(str, sorted(perl))))):
        if extra:
            env[name] = f"{extra}:{env[name]}" if env.get(name) else extra
    return env


def find(name: str) -> Program | None:
    """Return the program of that name: the machine's own first, then the unpacked one."""
    own = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if own:
        return Program(Path(own), dict(os.environ))
    if name in OWN:
        return None
    for root in (ROOT, APART):
        for place in PLACES:
            # php is called php8.2 where the links that an installation makes are missing.
            versions = sorted((root / place).glob(f"{name}[0-9].[0-9]"))
            for candidate in (root / place / name, *versions):
                if os.access(candidate, os.X_OK):
                    return Program(candidate, environment())
    return None


def require(name: str) -> Program:
    """Return the program, or skip the test with the reason; where CI=true its absence fails the test."""
    remedy = f"apt install {OWN[name]}" if name in OWN else "`make test` unpacks it where apt and a network are, or install it"
    return find(name) or missing(f"{name} is not here: {remedy}")


def missing(reason: str) -> NoReturn:
    """Skip the running test for something the machine lacks; where CI=true fail it."""
    import pytest  # here, so that benchmarks can use `find` without it

    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)

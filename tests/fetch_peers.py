"""Unpacks the programs of other projects that tests and benchmarks talk to, under .cache/peers: no root, nothing installed.

Invariant: never fails a build. Where there is no apt or no network it says so, and the tests that want the programs skip
(or fail, where CI=true: see peers.py). Standard library only, so that any Python runs it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).resolve().parent.parent / ".cache" / "peers"

# The one list. Debian package -> a program of it, by which we see that the machine has it already.
PACKAGES = {
    "postfix": "smtp-source",  # smtp-source and smtp-sink for tests, the whole of it for benchmarks
    "swaks": "swaks",
    "libnet-ssleay-perl": None,  # swaks's TLS
    "msmtp": "msmtp",
    "s-nail": "s-nail",
    "curl": "curl",
    "strace": "strace",
    "prometheus": "promtool",
}
# Of these only the package itself: the programs wanted from it stand alone.
ALONE = {"prometheus"}


def installed(package: str) -> bool:
    """Tell whether the machine has the package's program already."""
    program = PACKAGES[package]
    return program is not None and shutil.which(program, path="/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin") is not None


def closure(package: str) -> list[str]:
    """Return the package and what it needs that this machine lacks, as apt would install it."""
    if package in ALONE:
        return [package]
    plan = run("apt-get", "--simulate", "--no-install-recommends", "install", package)
    wanted = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    return wanted or [package]


def run(*command: str, cwd: Path | None = None) -> str:
    """Run to the end and return stdout. Raises: RuntimeError with what it said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise RuntimeError(f"{' '.join(command[:2])}: {last}")
    return done.stdout


def fetch(package: str, root: Path, debs: Path) -> None:
    """Download the package with what it lacks, and unpack all into `root`."""
    for name in closure(package):
        if (debs / f".{name}").exists():
            continue
        run("apt-get", "download", name, cwd=debs)
        newest = max(debs.glob(f"{name.partition(':')[0]}_*.deb"), key=lambda deb: deb.stat().st_mtime)
        run("dpkg", "-x", str(newest), str(root))
        newest.unlink()
        (debs / f".{name}").touch()


def main() -> int:
    """Fetch what is missing; say what could not be had."""
    stamp = PEERS / f"done-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}"
    if stamp.exists():
        return 0
    missing = [package for package in PACKAGES if not installed(package)]
    if missing and not (shutil.which("apt-get") and shutil.which("dpkg")):
        print(f"peers: no apt here; tests that want these will skip: {', '.join(missing)}")
        return 0
    root, debs = PEERS / "root", PEERS / "debs"
    root.mkdir(parents=True, exist_ok=True)
    debs.mkdir(parents=True, exist_ok=True)
    failed = False
    for package in missing:
        try:
            fetch(package, root, debs)
            print(f"peers: {package} unpacked under .cache/peers")
        except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            failed = True
            print(f"peers: {package} could not be had ({error}); tests that want it will skip")
    if not failed:
        stamp.touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())

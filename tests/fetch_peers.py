"""Unpacks the programs of other projects that tests and benchmarks talk to, under .cache/peers: no root, nothing installed.

Invariant: never fails a build. Where there is no apt or no network it says so, and the tests that want the programs skip
(or fail, where CI=true: see peers.py). Standard library only, so that any Python runs it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

PEERS = Path(__file__).resolve().parent.parent / ".cache" / "peers"

# The one list. Debian package -> a program of it, by which we see that the machine has it already.
PACKAGES = {
    "postfix": "smtp-source",  # smtp-source and smtp-sink for tests, the whole of it for benchmarks
    "exim4-daemon-light": "exim4",  # a next hop of another make
    "libnss-wrapper": None,  # an account for it
    "swaks": "swaks",
    "libnet-ssleay-perl": None,  # swaks's TLS
    "libio-socket-ssl-perl": None,  # TLS of Perl's Net::SMTP, which git send-email uses
    "libauthen-sasl-perl": None,  # and its AUTH
    "git-email": None,
    "libmailtools-perl": None,  # git-email recommends it and does nothing without it
    "msmtp": "msmtp",
    "s-nail": "s-nail",
    "curl": "curl",
    "php-cli": "php",
    "libphp-phpmailer": None,
    "php-mail": None,  # PEAR's Mail, which MediaWiki uses
    "php-net-smtp": None,
    "php-symfony-mailer": None,  # Laravel's, Nextcloud's
    "wordpress": None,  # its own wp_mail()
    "ruby": "ruby",
    "ruby-actionmailer": None,  # with ruby-mail: Mastodon's, Discourse's
    "node-nodemailer": None,  # Ghost's; node itself cannot be unpacked: Debian's looks for its parts under /usr/share
    "strace": "strace",
    "promtool": "promtool",
    "knot": "knotd",  # a signed zone
    "unbound": "unbound",  # a resolver that validates it
    "libmail-dkim-perl": None,  # another's word on our signatures
    "opendkim": "opendkim",  # and one that knows Ed25519
}
# Of these only the package itself: what is wanted from it stands alone.
ALONE = {"promtool", "prometheus", "wordpress"}
# A package of Debian 13, and the one that has the same program where there is no such package.
FORMERLY = {"promtool": "prometheus"}
# These shut out others of the list, as each is a mail server: apt is asked for them by themselves, and they get a root of their own.
APART = {"exim4-daemon-light"}


def installed(package: str) -> bool:
    """Tell whether the machine has the package's program already."""
    program = PACKAGES[package]
    return program is not None and shutil.which(program, path="/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin") is not None


def in_this_distribution(package: str) -> str:
    """Return the name under which it can be had here."""
    if package in FORMERLY:
        try:
            run("apt-cache", "show", package)
        except RuntimeError:
            return FORMERLY[package]
    return package


def closure(packages: Iterable[str]) -> list[str]:
    """Return the packages and what they need that this machine lacks, as apt would install them."""
    alone = [package for package in packages if package in ALONE]
    whole = [package for package in packages if package not in ALONE]
    if not whole:
        return alone
    plan = run("apt-get", "--simulate", "--no-install-recommends", "install", *whole)
    wanted = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    # Those that are installed without their program (a Postfix in parts) are wanted all the same.
    return [*alone, *dict.fromkeys([*whole, *wanted])]


def run(*command: str, cwd: Path | None = None) -> str:
    """Run to the end and return stdout. Raises: RuntimeError with what it said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise RuntimeError(f"{' '.join(command[:2])}: {last}")
    return done.stdout


def fetch(packages: Iterable[str], root: Path, debs: Path) -> None:
    """Download the packages with what they lack, and unpack all into `root`."""
    names = [name for name in closure(packages) if not (debs / f".{name}").exists()]
    if not names:
        return
    for left in debs.glob("*.deb"):
        left.unlink()
    run("apt-get", "download", *names, cwd=debs)
    for deb in debs.glob("*.deb"):
        run("dpkg", "-x", str(deb), str(root))
        deb.unlink()
    for program in root.glob("usr/*bin/*"):
        if program.is_file() and not program.is_symlink() and program.stat().st_mode & 0o6000:
            program.chmod(0o755)  # a test needs nobody else's rights
    for name in names:
        (debs / f".{name}").touch()


def relocate(root: Path) -> None:
    """Have unpacked PHP look along its include_path for what it names by the place where an installation puts it."""
    for file in root.glob("usr/share/php/**/autoload.php"):
        text = file.read_bytes()
        changed = text.replace(b"require_once '/usr/share/php/", b"require_once '")
        if changed != text:
            file.write_bytes(changed)


def root_of(package: str) -> Path:
    """Return the folder that a package is unpacked into."""
    return PEERS / "apart" if package in APART else PEERS / "root"


def main() -> int:
    """Fetch what is missing; say what could not be had."""
    stamp = PEERS / f"done-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}"
    if stamp.exists():
        return 0
    missing = [package for package in PACKAGES if not installed(package)]
    if missing and not (shutil.which("apt-get") and shutil.which("dpkg")):
        print(f"peers: no apt here; tests that want these will skip: {', '.join(missing)}")
        return 0
    missing = [in_this_distribution(package) for package in missing]
    debs = PEERS / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    # All at once takes a tenth of the time; one that cannot be had must not cost the others.
    failures: dict[str, str] = {}
    for group in ([name for name in missing if name not in APART], *([name] for name in missing if name in APART)):
        failed = _try(group, debs)
        if len(group) > 1 and failed:
            failed = {package: why for package in group for why in _try([package], debs).values()}
        failures |= failed
    unpacked = [package for package in missing if package not in failures]
    if unpacked:
        print(f"peers: unpacked under .cache/peers: {', '.join(unpacked)}")
    for package, why in failures.items():
        print(f"peers: {package} could not be had ({why}); tests that want it will skip")
    if not failures:
        stamp.touch()
    return 0


def _try(packages: list[str], debs: Path) -> dict[str, str]:
    """Fetch these together; return why not, for each of them."""
    if not packages:
        return {}
    root = root_of(packages[0])
    try:
        root.mkdir(parents=True, exist_ok=True)
        fetch(packages, root, debs)
        relocate(root)
    except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        return dict.fromkeys(packages, str(error))
    return {}


if __name__ == "__main__":
    sys.exit(main())

"""The Debian packages, built here and installed into a copy of this very system that an overlay makes: nothing of the machine
changes, and dpkg and its scripts are the real ones.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import peers
from batches import unused_port
from relay_process import wait_for

ROOT = Path(__file__).parents[2]
BESIDE = """\
listeners: [{listen: "127.0.0.1:%d"}, {listen: "unix:/run/sesrelay/submit.sock"}]
http: {listen: "127.0.0.1:0"}
transports: {park: {type: hold}}
default_route: {transport: park}
"""


@dataclass
class Debian:
    """A system of its own below `root`."""

    root: Path

    def run(self, *command: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LANG": "C.UTF-8"}
        return subprocess.run(
            ["chroot", str(self.root), *command], env=env, capture_output=True, text=True, timeout=180, check=False, **kwargs
        )  # type: ignore[call-overload]  # what is passed on is input alone

    def dpkg(self, *args: str) -> str:
        done = self.run("dpkg", "--force-confold", "--force-unsafe-io", *args)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of this version and of a later one."""
    if os.geteuid() != 0:
        pytest.skip("packages are installed by root")
    if not Path("/usr/bin/dpkg").exists() or shutil.which("nfpm", path=str(Path(sys.executable).parent)) is None:
        peers.missing("dpkg and nfpm are wanted")
    python = subprocess.run(["/usr/bin/python3", "-c", "import ensurepip, venv"], check=False)
    if python.returncode != 0:
        peers.missing("the distribution's Python has no venv")
    folder = tmp_path_factory.mktemp("packages")
    checkout = folder / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*", "build", "dist", "tests", "benchmarks"))
    subprocess.run(["chmod", "-R", "go=", checkout], check=True)  # as one is that was made under a strict umask
    build = [sys.executable, str(checkout / "packaging/deb/build.py"), "--work", str(folder / "work"), "--out", str(folder)]
    for more in ([], ["--again", "--version", "99.0.0"]):
        subprocess.run([*build, *more], check=True, stdout=subprocess.PIPE, timeout=600, umask=0o077)
    shutil.rmtree(folder / "work")
    return folder


@pytest.fixture
def debian(packages: Path, tmp_path: Path) -> Iterator[Debian]:
    base = tmp_path / "overlay"
    for name in ("upper", "work", "root"):
        (base / name).mkdir(parents=True)
    root = base / "root"
    # A file system of its own for what is written: an overlay cannot stand on another one.
    options = f"lowerdir=/,upperdir={base}/upper,workdir={base}/work"
    mounted = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, root], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no overlay can be mounted here: {mounted.stderr.strip()}")
    try:
        for name in ("proc", "dev"):
            subprocess.run(["mount", "--rbind", f"/{name}", root / name], check=True)
            subprocess.run(["mount", "--make-rslave", root / name], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / "run"], check=True)
        for package in packages.glob("*.deb"):
            shutil.copy(package, root / "tmp")
        yield Debian(root)
    finally:
        subprocess.run(["umount", "--recursive", root], check=False)


def installed(debian: Debian, version: str) -> None:
    for name in ("sesrelay", "sesrelay-mta"):
        (file,) = debian.path("/tmp").glob(f"{name}_{version}*.deb")
        debian.dpkg("--install", f"/tmp/{file.name}")


def hollow(debian: Debian) -> Path:
    """Make the package anew without its libraries and pages: what its scripts do is seen as well, without 10,000 files each time."""
    (file,) = debian.path("/tmp").glob("sesrelay_0.*.deb")
    tree = debian.path("/tmp/hollow")
    subprocess.run(["dpkg-deb", "--raw-extract", file, tree], check=True)
    for most in ("opt", "usr/share"):
        shutil.rmtree(tree / most)
    subprocess.run(["dpkg-deb", "--build", tree, file], check=True, stdout=subprocess.PIPE)
    return file


@pytest.mark.timeout(900)
def test_built_under_a_strict_umask_it_is_there_for_everybody_all_the_same(packages: Path) -> None:
    for file in packages.glob("*.deb"):
        listed = subprocess.run(["dpkg-deb", "--contents", file], capture_output=True, text=True, check=True).stdout.splitlines()
        closed = {line.split()[5] for line in listed if not re.match(r"l|(d|-)rwxr-xr-x|-rw-r--r--", line)}
        assert closed <= {"./etc/sesrelay/config.yaml"}, sorted(closed)[:9]


@pytest.mark.timeout(900)
def test_installed_upgraded_and_removed(debian: Debian) -> None:
    installed(debian, "0.")
    config = debian.path("/etc/sesrelay/config.yaml")
    owner = pwd_of(debian, "sesrelay")
    assert (stat.S_IMODE(config.stat().st_mode), config.stat().st_uid, config.stat().st_gid) == (0o640, 0, owner[1])
    queue = debian.path("/var/lib/sesrelay")
    assert (queue.stat().st_uid, stat.S_IMODE(queue.stat().st_mode)) == (owner[0], 0o750)
    assert debian.run("sesrelay", "check").returncode == 0
    assert debian.run("/usr/bin/sesrelay-sendmail", "-bi").returncode == 0
    example = debian.run("sesrelay", "check", "--config", "/usr/share/doc/sesrelay/examples/config.yaml")
    assert example.returncode == 0, example.stdout + example.stderr
    verified = subprocess.run(
        ["systemd-analyze", "verify", f"--root={debian.root}", "--man=no", "sesrelay.service", "sesrelay.socket"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert verified.stdout == ""
    for page in ("man1/sesrelay.1.gz", "man5/sesrelay.yaml.5.gz", "man8/sesrelay-sendmail.8.gz"):
        assert debian.path(f"/usr/share/man/{page}").stat().st_size > 1000
    assert "_SESRELAY_COMPLETE" in debian.path("/usr/share/bash-completion/completions/sesrelay").read_text()

    config.write_text(BESIDE % unused_port())
    with running(debian):
        sent = debian.run("/usr/sbin/sendmail", "-f", "a@example.com", "b@example.net", input="Subject: kept\n\nhello\n")
        assert sent.returncode == 0, sent.stderr
        before = debian.run("mailq").stdout
        assert "a@example.com" in before
    installed(debian, "99.")
    assert config.read_text().startswith("listeners")
    with running(debian):
        assert debian.run("mailq").stdout.split()[0] == before.split()[0]
    debian.dpkg("--remove", "sesrelay-mta", "sesrelay")
    assert not debian.path("/usr/sbin/sendmail").exists()
    assert not debian.path("/opt/sesrelay/bin").exists()
    assert config.exists()
    assert (queue / "queue.db").exists(), "what was accepted outlives the package"


RECORDING = """\
#!/bin/sh
echo "$*" >>/tmp/asked
case "$*" in
*is-enabled*.service) [ -L /etc/systemd/system/multi-user.target.wants/sesrelay.service ] ;;
*is-enabled*.socket) [ -L /etc/systemd/system/sockets.target.wants/sesrelay.socket ] ;;
*is-active*) [ -e /tmp/active ] ;;
esac
"""


@pytest.mark.timeout(900)
def test_what_systemd_is_asked_when_it_is_removed_and_back(debian: Debian) -> None:
    def asked() -> list[str]:
        lines = debian.path("/tmp/asked").read_text().splitlines()
        debian.path("/tmp/asked").unlink()
        return [line for line in lines if "sesrelay" in line and "--quiet" not in line]

    file = hollow(debian)
    debian.dpkg("--install", f"/tmp/{file.name}")  # without systemd running, by the real systemctl
    link = debian.path("/etc/systemd/system/multi-user.target.wants/sesrelay.service")
    assert link.is_symlink()
    debian.path("/run/systemd/system").mkdir(parents=True)
    debian.path("/usr/bin/systemctl").write_text(RECORDING)
    debian.dpkg("--remove", "sesrelay")
    assert asked() == ["stop sesrelay.socket sesrelay.service"]
    debian.dpkg("--install", f"/tmp/{file.name}")
    assert asked() == ["restart sesrelay.service"], "a relay that was enabled runs again"
    held = debian.path("/etc/systemd/system/sockets.target.wants/sesrelay.socket")
    held.parent.mkdir(parents=True, exist_ok=True)
    held.symlink_to("/lib/systemd/system/sesrelay.socket")
    configure = debian.path("/var/lib/dpkg/info/sesrelay.postinst")
    for active in (False, True):
        if active:
            debian.path("/tmp/active").touch()
        assert debian.run("/" + str(configure.relative_to(debian.root)), "configure").returncode == 0
        before = [] if active else ["start sesrelay.socket"]  # the service, once it runs, is in the socket's way
        assert asked() == ["enable sesrelay.service", *before, "restart sesrelay.service"]
    for aborted in ("abort-remove", "abort-deconfigure"):
        assert debian.run("/" + str(configure.relative_to(debian.root)), aborted).returncode == 0
        assert asked() == ["start sesrelay.socket", "start sesrelay.service"], "prerm had stopped both"
    link.unlink()
    debian.dpkg("--install", f"/tmp/{file.name}")
    assert asked() == ["try-restart sesrelay.service"], "one that is disabled is left as it is"
    debian.path("/etc/sesrelay/config.yaml").unlink()
    debian.dpkg("--install", f"/tmp/{file.name}")
    assert not debian.path("/etc/sesrelay/config.yaml").exists(), "who removed it does without"
    link.symlink_to("/lib/systemd/system/sesrelay.service")
    secret = debian.path("/etc/sesrelay/ses-main.secret")
    secret.touch()
    assert "/etc/sesrelay is left" in debian.run("dpkg", "--purge", "sesrelay").stderr
    assert secret.exists()
    secret.unlink()
    debian.dpkg("--install", f"/tmp/{file.name}")
    debian.dpkg("--purge", "sesrelay")
    assert not link.is_symlink()
    assert not held.is_symlink()
    assert not debian.path("/etc/sesrelay").exists()
    assert not debian.path("/var/spool/sesrelay").exists()
    assert debian.path("/var/lib/sesrelay").exists()


def pwd_of(debian: Debian, name: str) -> tuple[int, int]:
    """Return uid and gid in the other system."""
    line = next(line for line in debian.path("/etc/passwd").read_text().splitlines() if line.startswith(f"{name}:"))
    uid, gid = line.split(":")[2:4]
    assert name not in {one.pw_name for one in pwd.getpwall()} or pwd.getpwnam(name).pw_uid == int(uid)
    return int(uid), int(gid)


class running:
    """The installed daemon, as its unit starts it: as its own user."""

    def __init__(self, debian: Debian) -> None:
        self.debian = debian

    def __enter__(self) -> None:
        uid, gid = pwd_of(self.debian, "sesrelay")
        run = self.debian.path("/run/sesrelay")
        run.mkdir(exist_ok=True)
        os.chown(run, uid, gid)
        self.process = subprocess.Popen(
            ["chroot", f"--userspec={uid}:{gid}", str(self.debian.root), "/usr/bin/sesrelay", "run"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        wait_for("the installed daemon is ready", self._ready, 60)

    def _ready(self) -> bool:
        if self.process.poll() is not None:
            assert self.process.stdout is not None
            raise AssertionError(self.process.stdout.read().decode())
        return (self.debian.path("/run/sesrelay") / "submit.sock").exists()

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

"""The units for systemd: silent under `verify`, tight under `security`, and not too tight for the daemon to run.

systemd itself does not have to run here; its tools read the units offline.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import peers
from traces import strace

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
SERVICE = (UNITS / "sesrelay.service").read_text(encoding="utf-8")

# PR_SET_MDWE refuses memory that is both writable and executable, as MemoryDenyWriteExecute= does; it outlives exec.
DENY = "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Return a folder with the units, made to start a program that is on this machine."""
    program = tmp_path / "program"
    program.symlink_to(sys.executable)  # whose own path may have a blank in it
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(
            unit.read_text(encoding="utf-8").replace("/usr/bin/sesrelay", str(program)), encoding="utf-8"
        )
    return tmp_path


def analyze(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze with both streams in stdout."""
    program = peers.require("systemd-analyze")
    return subprocess.run(
        program.command(*args), env=dict(program.env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


@pytest.mark.parametrize("unit", ["sesrelay.service", "sesrelay.socket"])
def test_verify_has_nothing_to_say(units: Path, unit: str) -> None:
    done = analyze("verify", "--man=no", units / unit)
    assert (done.stdout, done.returncode) == ("", 0)  # unknown keys are only said, not counted


def test_verify_would_say_something(units: Path) -> None:
    service = units / "sesrelay.service"
    service.write_text(service.read_text(encoding="utf-8").replace("WatchdogSec", "WatchDogSecs"), encoding="utf-8")
    assert "WatchDogSecs" in analyze("verify", "--man=no", service).stdout


def test_exposure_is_two_at_most(units: Path) -> None:
    done = analyze("security", "--offline=yes", "--threshold=20", "--no-pager", units / "sesrelay.service")
    assert done.returncode == 0, done.stdout


def test_the_promises_that_no_score_counts() -> None:
    for line in (
        "Type=notify",
        "NotifyAccess=main",
        "User=sesrelay",
        "PrivateUsers=no",
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "RestartPreventExitStatus=78",
        "RestartForceExitStatus=SIGHUP",
        "StateDirectory=sesrelay",
        "StartLimitIntervalSec=0",
        "ExecReload=/usr/bin/sesrelay reload",
        "RuntimeDirectoryPreserve=restart",
    ):
        assert re.search(rf"^{re.escape(line)}$", SERVICE, re.MULTILINE), line


@contextmanager
def daemon(folder: Path, wrap: Sequence[str | Path] = (), env: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run the real daemon, hand it one message, and yield its SMTP port once that is answered."""
    with socket.socket() as free, socket.socket() as also:
        free.bind(("127.0.0.1", 0))
        also.bind(("127.0.0.1", 0))
        port, http = free.getsockname()[1], also.getsockname()[1]
    config = folder / "config.yaml"
    config.write_text(
        f"""\
hostname: mail.example.com
state_dir: state
control: control.sock
listeners: [{{listen: "127.0.0.1:{port}"}}, {{listen: "unix:submit.sock"}}]
access: {{local_users: {{somebody: [somebody.example]}}}}
transports: {{away: {{type: ses, region: us-east-1, endpoint_url: "http://127.0.0.1:9", access_key_id: A, secret_access_key: B, rate: 10}}}}
default_route: {{transport: away}}
http: {{listen: "127.0.0.1:{http}"}}
"""
    )
    config.chmod(0o600)
    (folder / "state").mkdir(mode=0o700)
    log = folder / "log"
    with log.open("wb") as out:
        command = [*map(str, wrap), sys.executable, "-m", "sesrelay", "run", "--config", str(config)]
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, env=env)
    try:
        replies = submit(port, process)
        assert b"queued as" in replies, f"{replies!r}\n{log.read_text()}"
        yield port
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def submit(port: int, process: subprocess.Popen[bytes]) -> bytes:
    """Send one message as soon as the daemon listens, and return all its replies."""
    for _ in range(600):
        try:
            conversation = socket.create_connection(("127.0.0.1", port), 20)
            break
        except OSError:
            if process.poll() is not None:
                return b"the daemon ended"
            time.sleep(0.05)
    else:
        pytest.fail("the daemon never listened")
    with conversation, conversation.makefile("rwb") as stream:
        replies = stream.readline()
        for command in (
            b"HELO client.example.com",
            b"MAIL FROM:<a@example.com>",
            b"RCPT TO:<b@example.org>",
            b"DATA",
            b"Subject: x\r\n\r\nx\r\n.",
            b"QUIT",
        ):
            stream.write(command + b"\r\n")
            stream.flush()
            replies += stream.readline()
        return replies


def test_the_daemon_runs_without_writable_code(tmp_path: Path) -> None:
    probe = subprocess.run(
        [sys.executable, "-c", DENY, sys.executable, "-c", "import mmap; mmap.mmap(-1, 4096, prot=7)"],
        capture_output=True,
        check=False,
    )
    if probe.returncode == 0:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3 and later)")
    with daemon(tmp_path, wrap=[sys.executable, "-c", DENY]):
        pass


def test_the_daemon_needs_no_system_call_that_the_unit_forbids(tmp_path: Path) -> None:
    tracer = strace()
    allowed: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", SERVICE, re.MULTILINE):
        calls = {call for name in line.lstrip("~").split() for call in expand(name)}
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    assert {"read", "socket"} <= allowed
    assert "mount" not in allowed
    record = tmp_path / "calls"
    with daemon(tmp_path, wrap=tracer.command("-f", "-qq", "-o", record), env=tracer.env):
        pass
    made = set(re.findall(r"^\d+ +(\w+)\(", record.read_text(errors="replace"), re.MULTILINE))
    if os.geteuid() == 0:
        made.discard("fchown")  # SQLite gives its files to the store's owner where it is root, which the unit's daemon is not
    assert {"bind", "listen"} <= made
    assert made - allowed == set()


def expand(name: str) -> set[str]:
    """Return the system calls of a group, those of the groups within it included."""
    if not name.startswith("@"):
        return {name}
    done = analyze("syscall-filter", "--no-pager", name)
    assert done.returncode == 0, done.stdout
    members = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ") and not line.strip().startswith("#")]
    return {call for member in members for call in expand(member)}


@pytest.mark.skipif(os.geteuid() != 0, reason="owners can be set by root only")
def test_root_writes_the_configuration_and_the_daemon_reads_it(tmp_path: Path) -> None:
    sysusers, tmpfiles = peers.require("systemd-sysusers"), peers.require("systemd-tmpfiles")
    (tmp_path / "etc/sesrelay/sites.d").mkdir(parents=True)
    for name in ("config.yaml", "sites.d/blog.yaml"):
        (tmp_path / "etc/sesrelay" / name).touch(0o644)
    subprocess.run(
        sysusers.command(f"--root={tmp_path}", ROOT / "packaging/sysusers.d/sesrelay.conf"), check=True, capture_output=True
    )
    subprocess.run(
        tmpfiles.command(f"--root={tmp_path}", "--create", ROOT / "packaging/tmpfiles.d/sesrelay.conf"),
        check=True,
        capture_output=True,
    )
    account = next(line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("sesrelay:"))
    uid, gid = int(account[2]), int(account[3])
    for name, owner, mode in (
        ("etc/sesrelay", 0, 0o750),
        ("etc/sesrelay/sites.d", 0, 0o750),
        ("etc/sesrelay/config.yaml", 0, 0o640),
        ("etc/sesrelay/sites.d/blog.yaml", 0, 0o640),
        ("var/lib/sesrelay", uid, 0o750),
    ):
        found = (tmp_path / name).stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (owner, gid, mode), name

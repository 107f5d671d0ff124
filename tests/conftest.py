"""What holds for every test: nothing of AWS in the environment, and no word to any machine but this one.

Invariant: a test that reaches out fails, whatever it made of the refusal.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("sesrelay", deadline=None, derandomize=os.environ.get("CI") == "true", print_blob=True)
settings.load_profile("sesrelay")

# Before anything imports boto3: no credentials, no profile and no proxy of the person who runs the tests, and no metadata
# service asked for any. Processes that tests start inherit this.
for name in [*os.environ]:
    if name.startswith("AWS_") or name.lower() in {"http_proxy", "https_proxy", "all_proxy", "sesrelay_submit"}:
        del os.environ[name]
os.environ.update(
    AWS_EC2_METADATA_DISABLED="true", AWS_CONFIG_FILE="/nonexistent/config", AWS_SHARED_CREDENTIALS_FILE="/nonexistent/credentials"
)
for name in (
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "CREDENTIALS_DIRECTORY",
):
    os.environ.pop(name, None)

_reached: list[str] = []


def _loopback(address: object) -> bool:
    if not isinstance(address, tuple) or not isinstance(address[0], str):
        return True
    try:
        ip = ipaddress.ip_address(address[0].partition("%")[0])
    except ValueError:
        return address[0] in {"", "localhost"}
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback or ip.is_unspecified


def _stay_home(event: str, args: tuple[object, ...]) -> None:
    if event in {"socket.connect", "socket.sendto"}:
        sock, address = args[0], args[1]
        if isinstance(sock, socket.socket) and sock.family in (socket.AF_INET, socket.AF_INET6) and not _loopback(address):
            _reached.append(f"{event} {address}")
            raise PermissionError(f"tests talk to loopback only, not to {address}")


sys.addaudithook(_stay_home)


@pytest.fixture(autouse=True)
def stay_home() -> Iterator[None]:
    """Fail the test that tried to reach another machine, even where the code under test made an outcome of it."""
    _reached.clear()
    yield
    tried, _reached[:] = list(_reached), []
    if tried:
        pytest.fail(f"tests talk to loopback only; this one tried {tried}", pytrace=False)

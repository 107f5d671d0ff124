"""`sesrelay send`, and what other verbs say where something odd is given to them or stdout cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_process import Relay

GONE = "transports: {gone: {type: discard}}\ndefault_route: {transport: gone}"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    with Relay(tmp_path_factory.mktemp("relay"), GONE) as running:
        yield running


@pytest.mark.parametrize("sender", ["a@example.com", "a@exämple.com", "ü@exämple.com"])
def test_a_test_message_leaves_as_it_was_made(relay: Relay, sender: str) -> None:
    done = relay.run("send", "--from", sender, "--to", "b@bücher.example", "--subject", "Grüße")
    assert (done.returncode, done.stderr) == (0, "")
    found = relay.trace(done.stdout.splitlines()[0].removeprefix("queued as "))
    assert found["events"][0]["event"] == "accepted"
    assert not found["events"][0].get("changes"), "nothing of it had to be mended"
    assert found["sender"].startswith(sender[0])


def test_a_subject_is_one_line(relay: Relay) -> None:
    done = relay.run("send", "--from", "a@example.com", "--to", "b@example.org", "--subject", "x\nBcc: c@example.org")
    assert (done.returncode, "one line" in done.stderr) == (64, True)


@pytest.mark.parametrize(("sender", "to"), [("a@example.com", "jane doe"), ("a b", "c@example.org"), ("", "c@example.org")])
def test_a_name_that_is_none_is_a_mistake_of_the_caller(relay: Relay, sender: str, to: str) -> None:
    done = relay.run("send", "--from", sender, "--to", to)
    assert (done.returncode, done.stdout) == (64, "")
    assert "the local part" in done.stderr


def test_try_later_is_what_the_relay_said(tmp_path: Path) -> None:
    with Relay(tmp_path, f"limits: {{min_free_disk: 1000000GiB}}\n{GONE}") as relay:
        done = relay.run("send", "--from", "a@example.com", "--to", "b@example.org")
        assert (done.returncode, "452 4.3.1" in done.stderr) == (75, True)


def test_what_is_queued_when_the_daemon_goes_away_is_unfinished(tmp_path: Path) -> None:
    nobody = "transports: {far: {type: smtp, host: 127.0.0.1, port: 1, tls: none}}\ndefault_route: {transport: far}"
    with Relay(tmp_path, nobody) as relay:
        args = ["send", "--from", "a@example.com", "--to", "b@example.org", "--config", str(relay.config)]
        command = [sys.executable, "-m", "sesrelay", *args]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as sending:
            assert sending.stdout is not None
            queue_id = sending.stdout.readline().removeprefix("queued as ").strip()
            relay.kill()
            _, said = sending.communicate()
        assert (sending.returncode, f"sesrelay trace {queue_id}" in said) == (75, True)


def test_octets_that_are_no_text_match_nothing(relay: Relay) -> None:
    for args in (("trace", "\udcff"), ("queue", "list", "--sender", "\udcff@example.com")):
        done = relay.run(*args)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("send", "--from", "a@example.com", "--to", "b@example.org"), 0),
        (("queue", "summary"), 0),
        (("route", "a@example.com"), 0),
        (("check", "--config", "WRONG"), 78),
    ],
)
def test_a_verb_whose_reader_has_gone_ends_as_it_would_have(relay: Relay, tmp_path: Path, args: tuple[str, ...], code: int) -> None:
    (tmp_path / "wrong.yaml").write_text("a: 1\nb: 2\n")
    command = [str(tmp_path / "wrong.yaml") if arg == "WRONG" else arg for arg in args]
    command += [] if "--config" in args else ["--config", str(relay.config)]
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "sesrelay", *command], stdout=write, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (code, b"")


@pytest.mark.parametrize(("args", "code"), [(("route",), 64), (("queue", "list", "--config", "/nowhere/config.yaml"), 78)])
def test_so_does_one_that_has_stderr_to_say_it_on(args: tuple[str, ...], code: int) -> None:
    """As in `sesrelay … 2>&1 | head -1`."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([sys.executable, "-m", "sesrelay", *args], stdout=write, stderr=write, timeout=60, check=False)
    finally:
        os.close(write)
    assert done.returncode == code


@pytest.mark.parametrize("args", [("--help",), ("--version",), ("queue", "list", "--json"), ("check",), ("route", "a@example.com")])
def test_a_disk_that_is_full_behind_stdout_is_said_in_a_line(relay: Relay, args: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        more = [] if args[0].startswith("-") else ["--config", str(relay.config)]
        command = [sys.executable, "-m", "sesrelay", *args, *more]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "No space left on device" in done.stderr

"""What operators do at a terminal and in scripts, with the real program: parking, asking, bars, pipes and colours."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sesrelay.cli.progress
from relay_process import PYTHON, Relay, wait_for
from sesrelay.cli.progress import progress

MORE = "transports: {nowhere: {type: discard}, park: {type: hold}}\ndefault_route: {transport: nowhere}\n"
PARKED = "routes: [{sender: keep.example, transport: park}]\n"
COLOUR = re.compile(r"\x1b\[\d+m")


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with Relay(tmp_path, MORE + PARKED) as made:
        yield made


def at_terminal(relay: Relay, *args: str, answer: str = "", env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a verb at a terminal of its own; return its exit code and all that stood there."""
    ours, theirs = pty.openpty()
    command = [PYTHON, "-m", "sesrelay", *args, "--config", str(relay.config)]
    made = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**relay.env, "TERM": "xterm", **(env or {})})
    os.close(theirs)
    stat, shown = Path(f"/proc/{made.pid}/stat"), b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # EIO: the other end is closed
            break
        if not piece:
            break
        shown += piece
        if answer and b"[y/N]" in shown:
            if answer == "^C":
                # One that comes between its last look at signals and its read() would be lost.
                wait_for("it reads", lambda: stat.read_text().rpartition(") ")[2].startswith("S"))
                made.send_signal(signal.SIGINT)
            else:
                os.write(ours, f"{answer}\n".encode())
            answer = ""
    os.close(ours)
    return made.wait(30), shown.decode()


def held(relay: Relay, count: int = 1) -> list[str]:
    ids = [relay.submit("a@keep.example", f"b{n}@example.org") for n in range(count)]
    wait_for("they are held", lambda: relay.ask("summary")["by_state"]["held"] == count)
    return ids


def state(relay: Relay, queue_id: str) -> tuple[str, str | None]:
    (one,) = relay.ask("show", id=queue_id)["deliveries"]
    return one["state"], one["reason"]


def test_what_comes_is_parked_across_a_restart_until_it_is_lifted(relay: Relay) -> None:
    done = relay.run("queue", "hold", "--sender", "*@Example.com", "--future")
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[0]) == (0, "0 deliveries changed")
    lift = re.search(r"sesrelay (queue release .*)", done.stdout)
    assert lift
    first = relay.submit("a@example.com", "b@example.org")
    other = relay.submit("a@other.example", "b@example.org")
    assert state(relay, first) == ("held", "operator")
    assert relay.ended(other)[0]["state"] == "delivered"
    assert [event["event"] for event in relay.trace(first)["events"]] == ["accepted", "routed", "held"]
    assert relay.stop() == 0
    (standing,) = relay.json("queue", "summary")["future_holds"]
    assert (standing["sender"], standing["recipient"], standing["transport"]) == ("*@example.com", None, None)
    assert relay.json("queue", "release", "--future") == [standing]
    added = relay.json("queue", "hold", "--recipient", "x@example.org", "--future")
    assert (added["changed"], len(added["future_holds"])) == (0, 2)
    relay.start()
    second = relay.submit("A@EXAMPLE.COM", "b@example.org")
    third = relay.submit("a@other.example", ["x@example.org", "y@example.org"])
    assert state(relay, second) == ("held", "operator")
    assert {one["recipient"]: one["state"] for one in relay.ask("show", id=third)["deliveries"]}["x@example.org"] == "held"
    shown = relay.run("queue", "summary").stdout
    assert "new mail that is held:" in shown
    assert lift[1].lower() in shown
    refused = relay.run("queue", "release", "--sender", "a@example.com", "--future")
    assert refused.returncode == 1
    assert lift[1].lower() in refused.stderr
    done = relay.run(*[word.strip("'").lower() for word in lift[1].split()])
    assert done.stdout.splitlines()[0] == "2 deliveries changed"
    assert [relay.ended(each)[0]["state"] for each in (first, second)] == ["delivered"] * 2
    assert relay.ended(relay.submit("a@example.com", "b@example.org"))[0]["state"] == "delivered"
    for wrong in (("hold", "--future"), ("hold", "--older-than", "4h", "--future"), ("release", first, "--future")):
        assert relay.run("queue", *wrong).returncode == 64


def test_without_a_store_there_is_no_place_for_a_wish(tmp_path: Path) -> None:
    relay = Relay(tmp_path, MORE)
    done = relay.run("queue", "hold", "--sender", "*@example.com", "--future")
    assert (done.returncode, done.stdout) == (75, "")
    assert "start the daemon first" in done.stderr
    assert relay.run("queue", "release", "--future").returncode == 0


def test_a_control_socket_that_cannot_be_made_ends_the_start_with_its_key(tmp_path: Path) -> None:
    relay = Relay(tmp_path, MORE)
    notes, other = tmp_path / "notes.txt", tmp_path / "other.sock"
    notes.write_text("precious")
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(other))
        theirs.listen()
        for control, why in (
            (tmp_path / "none" / "control.sock", "there is no folder"),
            (notes, "something other than a stale socket"),
            (other, "another program listens there"),
        ):
            relay.config.write_text(relay.config.read_text().replace(f"control: {relay.control}", f"control: {control}"))
            relay.control = control
            done = relay.run("run")
            assert done.returncode == 1
            (said,) = (line for line in done.stderr.splitlines() if line.startswith("sesrelay: cannot start: "))
            assert said.startswith(f"sesrelay: cannot start: control: {control}")
            assert why in said
            assert "change control" in said
    assert notes.read_text() == "precious"
    assert other.is_socket()
    other.unlink()
    relay.start()  # and what a dead one left is replaced
    relay.kill()
    relay.start()
    assert relay.stop() == 0
    assert not other.exists()


def test_a_control_socket_with_too_long_a_path_is_told_by_check(tmp_path: Path) -> None:
    relay = Relay(tmp_path, MORE)
    relay.config.write_text(relay.config.read_text().replace(f"control: {relay.control}", f"control: {tmp_path}/{'x' * 108}"))
    done = relay.run("check")
    assert done.returncode == 78
    assert "control: " in done.stdout
    assert "at most 107" in done.stdout


def test_verbs_ask_the_daemon_of_their_own_queue_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ours, others = Relay(tmp_path / "a", MORE + PARKED), Relay(tmp_path / "b", MORE)
    others.config.write_text(others.config.read_text().replace(f"control: {others.control}", f"control: {ours.control}"))
    with ours:
        queue_id = held(ours, 1)[0]
        assert others.run("queue", "list").stdout == ""
        assert others.run("queue", "delete", "--state", "held", "--yes").stdout == "0 deliveries changed\n"
        assert others.run("queue", "summary", "--json").returncode == 0
        assert json.loads(others.run("queue", "summary", "--json").stdout)["messages"] == 0
        assert "the relay is not running" in others.run("doctor").stdout
        added = others.run("site", "add", "zz", "--domain", "zz.example", "--direct")
        assert added.returncode == 1
        assert f"whose queue is in {ours.folder}/state; state_dir cannot change" in added.stderr
        done = others.run("run")
        assert done.returncode == 1
        assert f"control: {ours.control} is taken" in done.stderr
        assert state(ours, queue_id)[0] == "held"


def test_a_control_socket_that_somebody_removed_is_made_again_by_a_reload(tmp_path: Path) -> None:
    with Relay(tmp_path, MORE) as relay:
        relay.control.unlink()
        assert relay.process is not None
        relay.process.send_signal(signal.SIGHUP)
        wait_for("the socket is there", relay.control.is_socket)
        assert relay.ask("status")["pid"] == relay.process.pid
        assert relay.control.stat().st_mode & 0o777 == 0o660
        assert relay.ask("reload")["problems"] == []
        assert relay.stop() == 0
    assert not relay.control.exists()


def test_deleting_asks_at_a_terminal_and_tells_how_many(relay: Relay) -> None:
    ids = held(relay, 2)
    code, shown = at_terminal(relay, "queue", "delete", "--sender", "*@keep.example", answer="n")
    assert "Delete 2 deliveries for good" in shown
    assert "nothing was deleted" in shown
    assert (code, state(relay, ids[0])[0]) == (1, "held")
    code, shown = at_terminal(relay, "queue", "delete", "--sender", "*@keep.example", answer="^C")
    assert (code, state(relay, ids[0])[0]) == (130, "held")
    code, shown = at_terminal(relay, "queue", "delete", ids[0], answer="y")
    assert (code, state(relay, ids[0])) == (0, ("failed", "deleted"))
    assert "1 deliveries changed" in shown
    code, shown = at_terminal(relay, "queue", "delete", ids[1], "--yes")
    assert (code, "[y/N]" in shown) == (0, False)


def test_off_a_terminal_a_filter_wants_yes_and_ids_do_not(relay: Relay) -> None:
    ids = held(relay, 2)
    assert relay.run("queue", "delete", "--sender", "*@keep.example").returncode == 64
    assert relay.run("queue", "delete", ids[0]).stdout == "1 deliveries changed\n"
    assert relay.json("queue", "delete", "--sender", "*@keep.example", "--yes") == {"changed": 1}


def test_colours_are_for_terminals_alone(relay: Relay) -> None:
    (queue_id,) = held(relay)
    for verb in (("queue", "list"), ("trace", queue_id)):
        assert not COLOUR.search(relay.run(*verb).stdout)
        assert COLOUR.search(at_terminal(relay, *verb)[1])
    assert not COLOUR.search(at_terminal(relay, "queue", "list", env={"NO_COLOR": "1"})[1])


@pytest.mark.parametrize("daemon", [True, False])
def test_a_reader_that_leaves_is_no_failure(relay: Relay, daemon: bool) -> None:
    held(relay, 3)
    if not daemon:
        relay.stop()
    for more in ("", "--json"):
        command = f"'{PYTHON}' -m sesrelay queue list {more} --config '{relay.config}' | head -c 5; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], env=relay.env, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr, len(done.stdout)) == (0, "", 5)


def test_unknown_ids_with_json(relay: Relay) -> None:
    done = relay.run("queue", "show", "0" * 13, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, None)


def test_a_bar_shows_how_far_it_is_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        with progress("hold", 10) as told:
            told(5, 3)
        monkeypatch.setattr(sesrelay.cli.progress, "SHOWN_AFTER", 0.0)
        with progress("hold", 10_000) as told:
            told(5_000, 3_000)
        shown = b""
        while b"\x1b[?25h" not in shown:  # the cursor is back: the bar is gone
            shown += os.read(ours, 65536)
    os.close(ours)
    assert b"hold: 3,000 changed" in shown
    assert b"5000/10000" in shown
    assert b"3 changed" not in shown, "what is done at once shows no bar"
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    with progress("hold", 10_000) as told:
        told(5_000, 3_000)
    assert capfd.readouterr().err == ""


def test_what_others_wrote_does_not_steer_the_terminal(relay: Relay) -> None:
    steering = b"From: a@keep.example\r\nMessage-ID: <x\x1b]0;owned\x07\xe2\x80\xae@example.com>\r\n\r\nx\r\n"
    queue_id = relay.submit("a@keep.example", "b@example.org", steering)
    for args in (("queue", "show", queue_id), ("queue", "list"), ("trace", queue_id)):
        shown = relay.run(*args).stdout
        assert queue_id in shown
        assert all(line.isprintable() for line in shown.splitlines())
    assert "<x\\x1b]0;owned\\x07\\u202e@example.com>" in relay.run("queue", "show", queue_id).stdout

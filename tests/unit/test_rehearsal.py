"""What `check` finds beyond the files: what would keep a start from putting them in force here."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from sesrelay.app import rehearsal, wiring
from sesrelay.config.loading import load
from sesrelay.config.problem import ConfigError
from sesrelay.listener import sockets

FRAME = "state_dir: state\ncontrol: control.sock\nhttp: {listen: '127.0.0.1:0'}\n"


AWAY: list[str] = []


def problems(folder: Path, more: str, frame: str = FRAME) -> list[str]:
    """Return them without the file's name."""
    file = folder / "config.yaml"
    file.touch(mode=0o600)
    file.write_text(frame + more)
    try:
        load(file, rehearse=lambda *found: AWAY.extend(rehearsal.rehearse(*found)))
    except ConfigError as error:
        return [str(problem).replace(f"{folder}/", "") for problem in error.problems]
    return []


@pytest.fixture(autouse=True)
def no_region(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    AWAY.clear()
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


def test_an_ses_transport_wants_a_region_from_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = "transports: {a: {type: ses}, b: {type: ses, region: us-east-1}}\n"
    assert problems(tmp_path, ways) == [
        "config.yaml:4:14: transports.a: the AWS region is unknown: set region in the transport, or AWS_REGION"
    ]
    monkeypatch.setattr(rehearsal, "relay_user", lambda folder, pid: os.geteuid() + 1)
    assert problems(tmp_path, ways) == [], "another user's environment may name it"
    assert AWAY == ["transports.a: the AWS region is unknown: set region in the transport, or AWS_REGION"]
    AWAY.clear()
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert problems(tmp_path, ways) == []
    assert AWAY == []


def test_each_kind_of_way_out_can_be_made(tmp_path: Path) -> None:
    ways = (
        "transports: {s: {type: ses, region: us-east-1}, r: {type: smtp, host: email-smtp.us-east-1.amazonaws.com, username: u,"
        " password: p, preflight: true, identities_from: s}, h: {type: hold}, n: {type: discard}}\n"
        "routes: [{sender: a.example, transport: direct}]\n"
    )
    assert problems(tmp_path, ways) == []


@pytest.mark.parametrize(
    ("listen", "problem"),
    [
        ("[::1%none]:25", "::1%none is not an address of this machine (Name or service not known); change listeners"),
        ("unix:none/a.sock", "there is no folder none: create it, owned by the relay's user (systemd: RuntimeDirectory=), or change listeners"),
        ("unix:config.yaml", " is taken: something other than a stale socket is there; remove it, or change listeners"),
    ],
)  # fmt: skip
def test_a_listener_that_no_start_could_open(listen: str, problem: str, tmp_path: Path) -> None:
    found = problems(
        tmp_path, f"listeners: [{{listen: '127.0.0.1:0'}}, {{listen: '{listen}'}}]\naccess: {{networks: [10.0.0.0/8]}}\n"
    )
    text = problem if problem.startswith(" ") else f": {problem}"
    assert found == [f"config.yaml:4:47: listeners[1].listen: {listen}{text}"]


def test_what_may_pass_until_the_start_is_no_problem(tmp_path: Path) -> None:
    """A taken address, port 25 for who is not root, and folders that the unit or the start makes."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listens = [f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:25", "unix:/run/sesrelay/a.sock", "unix:state/a.sock"]
        assert problems(tmp_path, "listeners: [" + ", ".join(f"{{listen: '{each}'}}" for each in listens) + "]\n") == []


@pytest.mark.parametrize("listen", ["192.0.2.77:25", "[fe80::77%lo]:25"])
def test_an_address_that_the_machine_has_not_may_come_as_that_of_a_bridge(listen: str, tmp_path: Path) -> None:
    networks = "access: {networks: [10.0.0.0/8, 'fe80::/10']}\n"
    assert problems(tmp_path, f"listeners: [{{listen: '{listen}'}}]\n{networks}") == []
    assert [f"{listen}: no such address on this machine; change listeners"] == AWAY


def test_a_listener_after_one_that_is_passed_over_is_told_of_by_its_own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sesrelay.config.loading.has_ipv6", lambda: False)
    found = problems(tmp_path, "listeners: [{listen: '[::1]:25'}, {listen: 'unix:none/a.sock'}]\n")
    assert [one.partition(": unix")[0] for one in found] == ["config.yaml:4:44: listeners[1].listen"]


def test_page_control_socket_and_state_dir(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    frame = "state_dir: state/below\ncontrol: none/control.sock\nhttp: {listen: '127.0.0.1:0'}\n"
    assert problems(tmp_path, "", frame) == [
        "config.yaml:1:12: state_dir: state is not a folder (move it away, or set another one)",
        "config.yaml:2:10: control: unix:none/control.sock: there is no folder none: create it, owned by the relay's user (systemd: "
        "RuntimeDirectory=), or change control",
    ]
    page = "state_dir: queue\ncontrol: queue/control.sock\nhttp: {listen: '[::1%none]:0'}\n"
    assert problems(tmp_path, "", page) == [
        "config.yaml:3:16: http.listen: [::1%none]:0: ::1%none is not an address of this machine (Name or service not known); "
        "change http.listen"
    ]


def test_a_folder_in_which_the_relays_user_may_make_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shut").mkdir()
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "shut")
    listeners = "listeners: [{listen: 'unix:shut/a.sock'}]\n"
    (one,) = problems(tmp_path, listeners)
    assert one.startswith("config.yaml:4:22: listeners[0].listen: unix:shut/a.sock: no permission to create a socket in shut")
    with sockets.bind_unix(str(tmp_path / "shut/a.sock"), "a"):
        assert problems(tmp_path, listeners) == [], "systemd may hand it over"
    monkeypatch.setattr(rehearsal, "relay_user", lambda folder, pid: os.geteuid() + 1)
    assert problems(tmp_path, listeners) == [], "another user's rights are not ours"


def test_a_kernel_that_does_not_tell_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = errno.ENOSYS

    def untold() -> None:
        raise OSError(code, "access.local_users: the kernel does not say")

    monkeypatch.setattr(wiring, "prove_owners", untold)
    assert problems(tmp_path, "access: {local_users: {daemon: [a.example]}}\n") == [
        "config.yaml:4:10: access.local_users: the kernel does not say"
    ]
    code = errno.ENETUNREACH
    assert problems(tmp_path, "access: {local_users: {daemon: [a.example]}}\n") == [], "the loopback may be up at the start"
    assert AWAY == ["access.local_users: the kernel does not say"]


def test_a_folder_that_is_not_for_this_user_to_see_says_nothing_of_the_relays_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Python 3.14, too, where a path that may not be looked at is no folder."""
    (tmp_path / "state").mkdir()
    look = Path.stat

    def refused(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.name == "shut":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return look(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", refused)
    monkeypatch.setattr(Path, "is_dir", lambda path: path.name != "shut")
    listeners = "listeners: [{listen: 'unix:shut/a.sock'}]\n"
    (one,) = problems(tmp_path, listeners)
    assert "no permission to create a socket in shut" in one
    monkeypatch.setattr(rehearsal, "relay_user", lambda folder, pid: os.geteuid() + 1)
    assert problems(tmp_path, listeners) == []

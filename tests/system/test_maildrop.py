"""The maildrop: what sesrelay-sendmail leaves while the relay is down is taken in once it is up, as its owner's and once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

import peers
import sesrelay.sendmail
from relay_process import Relay, StandIn, ses_transport, wait_for
from sesrelay.app.daemon import Daemon
from sesrelay.config.loading import load
from sesrelay.listener import maildrop

ROOT = os.geteuid() == 0
NOBODY, SOMEBODY = 65534, 4242
NOWHERE = "127.0.0.1:1"
MESSAGE = b"From: shop@example.com\nTo: %b\nSubject: an order\n\nGr\xc3\xbc\xc3\x9fe\n.\n..two dots\n\nend"
BODY = b"Gr\xc3\xbc\xc3\x9fe\r\n.\r\n..two dots\r\n\r\nend\r\n"
GONE = "the file has gone from the maildrop"

PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable  # one that every user can run

needs_root = pytest.mark.skipif(not ROOT, reason="only root can be other users")


@pytest.fixture(scope="module")
def ses() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def relay(ses: StandIn) -> Iterator[Relay]:
    more = f"transports:\n{ses_transport('ses', ses.url)}\ndefault_route: {{transport: ses}}\nlimits: {{message_size: 1MiB, recipients: 3}}\n"
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are shut to other users
        Path(made).chmod(0o755)
        relay = Relay(Path(made), more)
        shutil.copytree(Path(sesrelay.sendmail.__file__).parent, relay.folder / "lib" / "sesrelay" / "sendmail")
        drop = folder(relay)
        drop.mkdir(parents=True)
        drop.chmod(0o3733)
        yield relay
        relay.__exit__()


def folder(relay: Relay) -> Path:
    return relay.folder / "state" / "maildrop"


def send(relay: Relay, to: str, *, message: bytes = MESSAGE, submit: str = NOWHERE, uid: int | None = None, code: int = 0) -> str:
    """Call the program as some program would; return what it said."""
    env = {**os.environ, "SESRELAY_SUBMIT": submit, "SESRELAY_MAILDROP": str(folder(relay))}
    python = sys.executable if uid is None else PYTHON
    program = f"import sys; sys.path.insert(0, '{relay.folder}/lib'); from sesrelay.sendmail import main; sys.exit(main())"
    command = [python, "-ISc", program, "-i", "-f", "shop@example.com"]
    message = message.replace(b"%b", to.encode())
    done = subprocess.run([*command, *to.split()], env=env, input=message, capture_output=True, user=uid, umask=0o077, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr.decode()


def dropped(relay: Relay) -> list[Path]:
    return sorted(path for path in folder(relay).iterdir() if path.name != "bad")


def taken(ses: StandIn, to: str) -> list[bytes]:
    return [one["raw"] for one in ses.journal() if to in one["destinations"]]


def troubles(relay: Relay) -> list[str]:
    return [line["why"] for line in relay.events("trouble") if "why" in line]


def test_without_a_relay_and_without_a_maildrop_the_caller_has_to_try_again(relay: Relay) -> None:
    folder(relay).rmdir()
    assert "try again later" in send(relay, "nobody@example.org", code=75)


def test_what_is_left_while_the_relay_is_down_arrives_once_it_is_up(relay: Relay, ses: StandIn) -> None:
    send(relay, "early@example.org")
    (file,) = dropped(relay)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    relay.start()
    wait_for(GONE, lambda: not dropped(relay))
    raw = wait_for("SES has it", lambda: taken(ses, "early@example.org"))
    assert len(raw) == 1
    assert message_from_bytes(raw[0]).get_payload(decode=True) == BODY  # 8-bit that nobody declared is encoded for SES
    # And while it runs, with more recipients than one transaction takes.
    many = [f"late{n}@example.org" for n in range(7)]
    send(relay, " ".join(many))
    wait_for(GONE, lambda: not dropped(relay))
    wait_for("SES has all", lambda: all(len(taken(ses, to)) == 1 for to in many))


def test_a_crash_between_the_queue_and_the_removal_repeats_nothing(relay: Relay, ses: StandIn) -> None:
    send(relay, "once@example.org")
    send(relay, "a@once.example.org b@once.example.org c@once.example.org d@once.example.org")
    files = {path.name: path.read_bytes() for path in dropped(relay)}
    relay.start()
    wait_for(GONE, lambda: not dropped(relay))
    for accepted in wait_for("all are accepted", lambda: relay.events("accepted")[2:] and relay.events("accepted")):
        relay.ended(accepted["queue_id"])
    relay.kill()
    for name, data in files.items():  # as if the removal had not come to the disk
        (folder(relay) / name).write_bytes(data)
    relay.start()
    wait_for(GONE, lambda: not dropped(relay))
    send(relay, "after@once.example.org")
    wait_for("SES has a later one", lambda: taken(ses, "after@once.example.org"))
    assert (
        len(taken(ses, "once@example.org")) == len(taken(ses, "a@once.example.org")) == len(taken(ses, "d@once.example.org")) == 1
    )


def test_killed_while_it_takes_in_each_message_is_taken_in_once(relay: Relay) -> None:
    relay.write("transports: {park: {type: hold}}\ndefault_route: {transport: park}")
    content = b"DATA\r\nMessage-ID: <%d@example.com>\r\n\r\nx\r\n.\r\n"
    for n in range(90):
        text = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<n%d@example.org>\r\n" % n + content % n
        (folder(relay) / f"{n}-x").write_bytes(text)
    for left in (75, 50, 25):
        relay.start()
        wait_for("some are taken in", lambda left=left: len(dropped(relay)) <= left)
        relay.kill()
    relay.start()
    wait_for(GONE, lambda: not dropped(relay))
    assert sum(relay.ask("summary")["by_state"].values()) == 90  # some perhaps in doubt, but each of them once


async def test_what_has_its_250_is_gone_when_the_relay_has_stopped(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Message-ID it could not be known again."""
    removing, remove = asyncio.Event(), maildrop._remove
    loop = asyncio.get_running_loop()

    def slowly(*args: str) -> None:
        loop.call_soon_threadsafe(removing.set)
        time.sleep(0.1)
        remove(*args)

    monkeypatch.setattr(maildrop, "_remove", slowly)
    relay.config.write_text(relay.config.read_text().replace("default_route: {transport: ses}", "default_route: {transport: park}"))
    relay.config.write_text(relay.config.read_text().replace("transports:\n", "transports:\n  park: {type: hold}\n"))
    for n in range(24):
        text = f"MAIL FROM:<shop@example.com>\r\nRCPT TO:<n{n}@example.org>\r\nDATA\r\nFrom: shop@example.com\r\n\r\nx\r\n.\r\n"
        (folder(relay) / f"{n}-x").write_text(text, newline="")
    daemon = Daemon(load(relay.config), relay.config)
    await daemon.start()
    await removing.wait()
    await daemon.stop()
    told = subprocess.run([sys.executable, "-m", "sesrelay", "queue", "summary", "--json", "--config", relay.config], capture_output=True, check=True)  # fmt: skip
    assert 0 < json.loads(told.stdout)["messages"] == 24 - len(dropped(relay)) < 24


def test_what_is_no_message_is_moved_aside_and_what_is_refused_too(relay: Relay, ses: StandIn) -> None:
    whole = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<x@example.org>\r\nDATA\r\nSubject: s\r\n\r\nx\r\n.\r\n"
    bad = {
        "1-cut": whole[:-3],
        "2-more": whole + b"MAIL FROM:<root@example.com>\r\n",
        "3-inner": whole.replace(b"\r\nx\r\n", b"\r\n.\r\nQUIT\r\n"),
        "4-verb": whole.replace(b"DATA", b"RSET\r\nDATA"),
        "5-norcpt": whole.replace(b"RCPT TO:<x@example.org>\r\n", b""),
        "6-noise": os.urandom(5000),
        "7-empty": b"",
        "8-large": whole.replace(b"\r\nx\r\n", b"\r\n" + b"x" * 70 + b"\r\n" * 2**20 + b"\r\n"),
        "9-refused": whole.replace(b"<a@example.com>", b"<a@b@example.com>"),
        "a name with spaces": whole,
        "a\udcff\n\x1b[2J name": whole,
    }
    for name, data in bad.items():
        (folder(relay) / name).write_bytes(data)
    (folder(relay) / ".begun").write_bytes(whole)
    relay.start()
    wait_for("they are gone", lambda: [path.name for path in dropped(relay)] == [".begun"])
    aside = folder(relay) / "bad"
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == bad
    assert stat.S_IMODE(aside.stat().st_mode) & 0o777 == 0o700
    wait_for("each is told of", lambda: len(troubles(relay)) == len(bad))  # the file goes first
    assert any("5.1.7" in why for why in troubles(relay))
    assert relay.get("/metrics").count(b"\nsesrelay_troubles_total %d.0\n" % len(bad)) == 1
    assert taken(ses, "x@example.org") == []


def test_a_recipient_that_is_refused_leaves_the_others_theirs(relay: Relay, ses: StandIn) -> None:
    send(relay, "one@example.org no@@example.org two@example.org")
    relay.start()
    wait_for(GONE, lambda: not dropped(relay))
    assert wait_for("SES has it", lambda: taken(ses, "one@example.org") and taken(ses, "two@example.org"))
    wait_for("it is told of", lambda: ["no@@example.org" in why for why in troubles(relay)] == [True])
    assert len(list((folder(relay) / "bad").iterdir())) == 1


def test_more_refusals_than_a_session_bears_leave_the_others_theirs(relay: Relay, ses: StandIn) -> None:
    relay.write(f"transports:\n{ses_transport('ses', ses.url)}\ndefault_route: {{transport: ses}}\n")
    send(relay, " ".join([*(f"u{n}@localhost" for n in range(150)), "patient@example.org"]))
    relay.start()
    wait_for("SES has it", lambda: taken(ses, "patient@example.org"))
    wait_for(GONE, lambda: not dropped(relay))
    assert "u0@localhost" in troubles(relay)[-1]


def test_what_is_moved_back_goes_to_those_who_have_not_had_it(relay: Relay) -> None:
    """Refused in part, moved back once the cause is mended, and come back from the dead: each has it, and has it once."""
    way = "transports: {park: {type: hold}}\ndefault_route: {transport: park}\nlimits: {recipients: 3}\nlocal: {unaliased: %s}"
    first, late, more = "one@example.org two@example.org", "late@relay.example.net", "three@example.org four@example.org"

    def waiting() -> list[str]:
        return sorted(one["recipient"] for one in relay.json("queue", "list", "--json"))

    relay.write(way % "reject")
    send(relay, f"{first} {late} {more}")
    (file,) = dropped(relay)
    data = file.read_bytes()
    relay.start()
    wait_for(GONE, lambda: not dropped(relay))
    aside = folder(relay) / "bad" / file.name
    aside.rename(file)  # too early: the cause is still there
    wait_for("it is set aside again", lambda: len(troubles(relay)) == 2 and not file.exists())
    assert waiting() == sorted(f"{first} {more}".split())
    assert all(late in why and first not in why for why in troubles(relay))

    relay.write(way % "hold")
    assert relay.process is not None
    relay.process.send_signal(signal.SIGHUP)
    wait_for("the cause is mended", lambda: len(relay.events("reloaded")) == 2)
    aside.rename(file)
    wait_for(GONE, lambda: not file.exists())
    everybody = sorted(f"{first} {late} {more}".split())
    assert waiting() == everybody
    assert not aside.exists()

    relay.kill()
    file.write_bytes(data)  # as if the removal had not come to the disk
    relay.start()
    wait_for(GONE, lambda: not file.exists())
    assert waiting() == everybody
    other = folder(relay) / ".other"
    other.write_bytes(data.replace(b"one@", b"other@"))
    other.rename(file)  # of the same name and Message-ID, and yet another message
    wait_for(GONE, lambda: not file.exists())
    assert "other@example.org" in waiting()
    assert not aside.exists()


def test_links_and_pipes_are_removed_and_never_followed(relay: Relay, tmp_path: Path) -> None:
    whole = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<x@example.org>\r\nDATA\r\nSubject: s\r\n\r\nx\r\n.\r\n"
    target = tmp_path / "target"
    target.write_bytes(whole)
    os.link(target, folder(relay) / "1-hard")
    (folder(relay) / "2-soft").symlink_to(target)
    os.mkfifo(folder(relay) / "3-pipe")
    (folder(relay) / "4-folder").mkdir()
    (folder(relay) / "5-gone").symlink_to("/nonexistent")
    relay.start()
    wait_for("they are gone", lambda: not dropped(relay))
    assert target.read_bytes() == whole
    assert [path.name for path in (folder(relay) / "bad").iterdir()] == ["4-folder"]
    assert relay.events("accepted") == []


@needs_root
def test_the_folder_as_it_is_installed(tmp_path: Path) -> None:
    sysusers, tmpfiles = peers.require("systemd-sysusers"), peers.require("systemd-tmpfiles")
    packaging = Path(__file__).parents[2] / "packaging"
    (tmp_path / "etc").mkdir()
    for command in (
        sysusers.command(f"--root={tmp_path}", packaging / "sysusers.d/sesrelay.conf"),
        tmpfiles.command(f"--root={tmp_path}", "--create", packaging / "tmpfiles.d/sesrelay-maildrop.conf"),
    ):
        subprocess.run(command, check=True, capture_output=True)
    drop = tmp_path / "var/spool/sesrelay/maildrop"
    assert stat.S_IMODE(drop.stat().st_mode) == 0o3733
    assert stat.S_IMODE((drop / "bad").stat().st_mode) & 0o777 == 0o700
    daemon = drop.stat()
    assert daemon.st_uid != 0
    assert ((drop / "bad").stat().st_uid, daemon.st_gid) == (daemon.st_uid, (drop / "bad").stat().st_gid)
    assert drop.parent.stat().st_uid == 0


@needs_root
def test_a_message_belongs_to_the_owner_of_its_file(relay: Relay, ses: StandIn) -> None:
    """A domain that is one user's can be used by that user's files alone."""
    relay.config.write_text(relay.config.read_text() + "\naccess: {local_users: {nobody: [example.com]}}\n")
    send(relay, "owned@example.org", uid=NOBODY)
    send(relay, "nameless@example.org", uid=SOMEBODY)
    group = folder(relay).stat().st_gid
    assert {(path.stat().st_uid, path.stat().st_gid) for path in dropped(relay)} == {(NOBODY, group), (SOMEBODY, group)}
    relay.start()
    wait_for(GONE, lambda: not dropped(relay))
    assert wait_for("SES has it", lambda: taken(ses, "owned@example.org"))
    wait_for("it is told of", lambda: ["5.7.1" in why for why in troubles(relay)] == [True])
    assert taken(ses, "nameless@example.org") == []


@needs_root
def test_users_can_neither_read_nor_change_what_others_left(relay: Relay) -> None:
    send(relay, "mine@example.org", uid=NOBODY)
    (file,) = dropped(relay)
    program = f"""
import os
def refused(action, *args):
    try:
        action(*args)
    except PermissionError:
        return
    raise SystemExit(f"{{action}} {{args}} was allowed")
refused(os.listdir, {str(file.parent)!r})
refused(open, {str(file)!r})
refused(open, {str(file)!r}, "ab")
refused(os.unlink, {str(file)!r})
refused(os.rename, {str(file)!r}, {str(file) + "x"!r})
"""
    subprocess.run([PYTHON, "-ISc", program], user=SOMEBODY, group=SOMEBODY, extra_groups=[], check=True)


@needs_root
def test_a_file_that_was_moved_in_is_not_taken_for_its_owners(relay: Relay, tmp_path: Path) -> None:
    """Whoever owns a folder can move another's file out of it; the folder's group shows that it was not made here."""
    moved = tmp_path / "moved"
    moved.write_bytes(b"MAIL FROM:<root@example.com>\r\nRCPT TO:<x@example.org>\r\nDATA\r\nSubject: s\r\n\r\nx\r\n.\r\n")
    os.chown(moved, 0, SOMEBODY)
    moved.rename(folder(relay) / "1-moved")
    relay.start()
    wait_for("it is gone", lambda: not dropped(relay))
    assert relay.events("accepted") == []
    wait_for("it is told of", lambda: ["moved here" in why for why in troubles(relay)] == [True])


def test_a_relay_that_cannot_store_leaves_it_for_later(relay: Relay, ses: StandIn) -> None:
    full = relay.config.read_text().replace("limits: {", "limits: {min_free_disk: 900000GB, ")
    good = relay.config.read_text()
    relay.config.write_text(full)
    send(relay, "patient@example.org")
    relay.start()
    stays = wait_for("it is put off", lambda: [e for e in relay.events("notice") if "stays in the maildrop" in e["what"]])
    assert "452" in stays[0]["why"]
    assert len(dropped(relay)) == 1
    # The program, too, keeps what the relay cannot store.
    send(relay, "patient2@example.org", submit="{}:{}".format(*relay.smtp))
    assert len(dropped(relay)) == 2
    relay.config.write_text(good)
    relay.stop()
    relay.start()
    wait_for(GONE, lambda: not dropped(relay))
    wait_for("SES has both", lambda: taken(ses, "patient@example.org") and taken(ses, "patient2@example.org"))

"""`queue export` and `queue import`: mail as files, between relays, with the daemon and without, and out of a damaged store."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from relay_process import KEY, SECRET, Relay, StandIn, ses_transport, wait_for
from sesrelay.spool.files import THRESHOLD


@pytest.fixture
def ses() -> Iterator[StandIn]:
    with StandIn({"keys": {KEY: SECRET}}) as made:
        yield made


def config(ses: StandIn) -> str:
    return (
        f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}\nlimits: {{min_free_disk: 0}}\n"
    )


PARKED = "transports: {park: {type: hold}}\ndefault_route: {transport: park}\nlimits: {min_free_disk: 0}\n"
BODY = b"From: a@example.com\r\nSubject: x\r\n\r\n" + (b"y" * 76 + b"\r\n") * 40
LARGE = b"From: a@example.com\r\nSubject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * ((THRESHOLD + 4096) // 78)


def one(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


@pytest.mark.parametrize("running", [True, False], ids=["daemon up", "daemon down"])
def test_a_queue_moves_to_another_host(tmp_path: Path, ses: StandIn, running: bool) -> None:
    out = tmp_path / "out"
    with Relay(one(tmp_path, "old"), PARKED) as old:
        ids = {
            old.submit("a@example.com", ["b@example.org", "c@example.org"], options=["RET=HDRS", "ENVID=e1"]),
            old.submit("", "d@example.org", b"From: bounces@example.com\r\nSubject: n\xc3\xbcll\r\n\r\nx\r\n"),
            old.submit("a@example.com", "b@example.org", LARGE),
        }
        wait_for("all wait", lambda: old.ask("summary")["by_state"]["held"] == 4)
        if not running:
            old.stop()
        before = old.json("queue", "list")
        assert old.json("queue", "export", str(out)) == {"exported": 3, "folder": str(out), "unreadable": []}
        assert old.json("queue", "list") == before, "an export changes nothing"
    assert {path.name for path in out.iterdir()} == {f"{each}.{kind}" for each in ids for kind in ("eml", "json")}
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    read = [message_from_bytes(path.read_bytes(), policy=policy.default) for path in out.glob("*.eml")]
    assert {each["Subject"] for each in read} == {"test", "nüll", "large"}
    # Held by the transport of that name: released by hand, as an operator would, in the files themselves.
    for path in out.glob("*.json"):
        path.write_text(path.read_text().replace('"state": "held"', '"state": "queued"'))
    with Relay(one(tmp_path, "new"), config(ses)) as new:
        if not running:
            new.stop()
        assert new.json("queue", "import", str(out)) == {"imported": 3, "known": 0, "refused": []}
        assert new.json("queue", "import", str(out)) == {"imported": 0, "known": 3, "refused": []}
        if not running:
            new.start()
        for each in ids:
            assert {d["state"] for d in new.ended(each)} == {"delivered"}
        assert new.json("queue", "import", str(out)) == {"imported": 0, "known": 3, "refused": []}, "also once they have ended"
        life = [event["event"] for event in new.trace(next(iter(ids)))["events"]]
        assert life[0] == "accepted"
        assert life.count("routed") == 2
        taken = ses.journal()
        assert len(taken) == 3
        assert {one["raw"].rpartition(b"\r\n\r\n")[2] for one in taken} >= {LARGE.rpartition(b"\r\n\r\n")[2], b"x\r\n"}
        assert sorted(one["source"] for one in taken) == ["a@example.com", "a@example.com", "bounces@example.com"]


def test_what_is_no_export_is_refused_and_the_rest_taken(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Relay(one(tmp_path, "one"), PARKED) as relay:
        ids = [relay.submit("a@example.com", f"b{n}@example.org") for n in range(3)]
        wait_for("all wait", lambda: relay.ask("summary")["by_state"]["held"] == 3)
        assert relay.run("queue", "export", str(out), ids[0]).stdout == f"1 messages exported to {out}\n"
        assert relay.run("queue", "export", str(out), "--recipient", "b1@example.org").stdout.startswith("1 messages")
        assert relay.run("queue", "export", str(out), "0" * 13).returncode == 1
        relay.run("queue", "export", str(out), ids[2])
        envelope = out / f"{ids[2]}.json"
        document = json.loads(envelope.read_text())
        (out / "half.json").write_text("{")
        (out / f"{ids[1]}.eml").unlink()
        for wrong in (
            {**document, "sender": "a@example.com\r\nRCPT TO:<x@example.net>"},
            {**document, "version": 99},
            {**document, "recipients": []},
            {**document, "sender": "other@example.com"},  # another message's id
        ):
            envelope.write_text(json.dumps(wrong))
            done = relay.json("queue", "import", str(out))
            assert (done["imported"], done["known"]) == (0, 1)
            assert len(done["refused"]) == 3
        assert relay.run("queue", "import", str(tmp_path / "nowhere")).returncode == 64


def test_a_damaged_store_is_never_started_empty_and_gives_back_what_is_whole(tmp_path: Path, ses: StandIn) -> None:
    out = tmp_path / "out"
    with Relay(one(tmp_path, "old"), PARKED) as old:
        ids = {old.submit("a@example.com", f"b{n}@example.org", BODY) for n in range(40)}
        ids.add(old.submit("a@example.com", "large@example.org", LARGE))
        lost = old.submit("a@example.com", ["b@example.org", "c@example.org"], BODY.replace(b": x", b": this one is lost"))
        wait_for("all wait", lambda: old.ask("summary")["by_state"]["held"] == 43)
        old.stop()
        store = tmp_path / "old" / "state" / "queue.db"
        whole = {path.name: path.read_bytes() for path in store.parent.iterdir() if path.is_file()}
        place = store.read_bytes().index(b"Subject: this one is lost") // 4096 * 4096
        damaged = bytes(4096) + store.read_bytes()[4096:place] + bytes(4096) + store.read_bytes()[place + 4096 :]
        store.write_bytes(damaged)  # without its first page it is no database to anybody
        refused = old.run("run")
        assert refused.returncode == 1
        assert "queue export" in refused.stderr
        done = old.run("queue", "export", str(out), "--json")
        found = json.loads(done.stdout)
        assert "in the readable part of" in done.stderr
        assert found["exported"] == len(ids)
        assert done.returncode == 1
        assert [one["id"] for one in found["unreadable"]] == [lost]
        assert "(from a@example.com to b@example.org, c@example.org)" in found["unreadable"][0]["error"]
        assert store.read_bytes() == damaged, "what is damaged is only read"
        assert whole.keys() == {path.name for path in store.parent.iterdir() if path.is_file()}
    assert {path.stem for path in out.glob("*.eml")} <= ids
    assert not list(out.glob(".*"))
    with Relay(one(tmp_path, "new"), config(ses)) as new:
        taken = new.json("queue", "import", str(out))
        assert (taken["imported"], taken["refused"]) == (found["exported"], [])
        new.run("queue", "release", "--state", "held")
        for each in out.glob("*.eml"):
            assert new.ended(each.stem)[0]["state"] == "delivered"
        assert len(ses.journal()) == found["exported"]

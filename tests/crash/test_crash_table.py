"""Each row of the crash table: the real process dies of SIGKILL at a named point, and what the next life makes of it."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from onslaught import SmtpHop
from relay_process import KEY, PYTHON, SECRET, Relay, StandIn, ses_transport, wait_for

DYING = Path(__file__).with_name("dying_relay.py")


class Mortal(Relay):
    """A relay whose next life may end at a named point."""

    def live(self, point: str = "nowhere") -> Mortal:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([PYTHON, str(DYING), point, str(self.config)], env=self.env, stderr=log)
        self.status = wait_for("the daemon is ready", self._look)
        return self

    def died(self) -> None:
        assert self.process is not None
        assert self.process.wait(30) == -9

    def the_message(self) -> dict[str, object]:
        """Return the one message there is, as `trace` tells of it."""
        (found,) = [self.trace(one["id"]) for one in self.ask("recent", limit=10) if one["sender"]]
        return found


@pytest.fixture
def ses() -> Iterator[StandIn]:
    with StandIn({"keys": {KEY: SECRET}}) as made:
        yield made


@pytest.fixture
def relay(tmp_path: Path, ses: StandIn) -> Iterator[Mortal]:
    more = f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}\nqueue: {{retry: [1s]}}"
    made = Mortal(tmp_path, more)
    yield made
    made.__exit__()


def send(relay: Mortal, recipient: str = "b@example.org", body: str = "x\r\n") -> bool:
    """Submit one message; tell whether the client got its 250."""
    try:
        with smtplib.SMTP(*relay.smtp, timeout=30) as smtp:
            smtp.sendmail("a@example.com", [recipient], "From: a@example.com\r\n\r\n" + body)
    except (smtplib.SMTPServerDisconnected, ConnectionError):
        return False
    return True


def let_one_wait(relay: Mortal, ses: StandIn) -> None:
    """Leave a message in the queue, due soon, so that the next life must open its attempt by a commit of its own."""
    ses.tell(script=["503"])
    relay.live()
    assert send(relay)
    wait_for("it is put off", lambda: relay.ask("summary")["by_state"]["queued"])
    relay.kill()


def test_before_a_nothing_is_stored_and_the_client_knows(relay: Mortal, ses: StandIn) -> None:
    relay.live("before_A")
    assert not send(relay)
    relay.died()
    relay.live()
    assert relay.ask("recent", limit=10) == []
    assert send(relay)
    wait_for("SES has it", ses.journal)


def test_after_a_it_is_kept_though_the_client_never_heard(relay: Mortal, ses: StandIn) -> None:
    relay.live("after_A")
    assert not send(relay)
    relay.died()
    relay.live()
    (one,) = relay.the_message()["deliveries"]  # type: ignore[attr-defined]
    assert one["state"] == "queued"
    assert relay.ask("retry", **_all()) == 1
    wait_for("SES has it", ses.journal)


LARGE = "and that 30,000 times over in a file, from its socket and to it\r\n" * 30_000


@pytest.mark.parametrize(
    ("point", "kept", "sent"), [("before_A", 0, 0), ("after_A", 1, 0), ("after_sending", 1, 1), ("inside_C", 1, 1)]
)
def test_what_is_too_large_to_be_held_is_kept_or_not_as_all_else(
    relay: Mortal, ses: StandIn, point: str, kept: int, sent: int
) -> None:
    relay.live(point)
    send(relay, body=LARGE)
    relay.died()
    relay.live()
    assert len(list((relay.folder / "state" / "bodies").iterdir())) == kept
    assert len(ses.journal()) == sent
    if not kept:
        assert relay.ask("recent", limit=10) == []
        assert send(relay, body=LARGE)
    else:
        assert relay.ask("retry", **_all()) == 1
    wait_for("SES has it", lambda: len(ses.journal()) == sent + 1)
    assert {one["raw"].partition(b"\r\n\r\n")[2] for one in ses.journal()} == {LARGE.encode()}
    wait_for("its file is gone", lambda: not list((relay.folder / "state" / "bodies").iterdir()))


def test_between_a_and_b_no_attempt_is_spent(relay: Mortal, ses: StandIn) -> None:
    let_one_wait(relay, ses)
    relay.live("before_B")
    relay.died()
    assert ses.journal() == []
    relay.live()
    queue_id = relay.ask("recent", limit=1)[0]["id"]
    (one,) = relay.ended(queue_id)
    assert (one["state"], one["attempts"]) == ("delivered", 1)
    assert len(ses.journal()) == 1


@pytest.mark.parametrize(("point", "sent"), [("after_B", 0), ("before_sending", 0), ("after_sending", 1), ("inside_C", 1)])
def test_between_b_and_c_it_is_in_doubt_and_waits_a_minute(relay: Mortal, ses: StandIn, point: str, sent: int) -> None:
    if point == "after_B":
        let_one_wait(relay, ses)
        relay.live(point)
    else:
        relay.live(point)
        send(relay)
    relay.died()
    assert len(ses.journal()) == sent
    relay.live()
    message = relay.the_message()
    (one,) = message["deliveries"]  # type: ignore[attr-defined]
    assert (one["state"], one["reason"]) == ("queued", "in_doubt")
    due = datetime.fromisoformat(one["next_attempt"].replace("Z", "+00:00"))
    assert (due - datetime.now(UTC)).total_seconds() > 50
    assert [event["outcome"] for event in message["events"] if event["event"] == "attempt"][-1] == "ambiguous"  # type: ignore[attr-defined]
    assert relay.ask("retry", **_all()) == 1
    assert relay.ended(str(message["id"]))[0]["state"] == "delivered"
    assert len(ses.journal()) == sent + 1, "possibly twice, never lost"


@pytest.mark.parametrize(("point", "sent"), [("before_sending", 0), ("after_sending", 1), ("inside_C", 1), ("after_C", 1)])
def test_before_a_relay_it_is_the_same(tmp_path: Path, point: str, sent: int) -> None:
    """What stands above holds for SMTP too: in doubt between B and C, done after C, never lost."""
    with SmtpHop() as hop:
        relay = Mortal(tmp_path, f"transports:\n{hop.transport}\ndefault_route: {{transport: out}}\n")
        try:
            relay.live(point)
            send(relay)
            relay.died()
            wait_for("the host has it", lambda: len(hop.taken()) == sent)
            relay.live()
            (one,) = relay.the_message()["deliveries"]  # type: ignore[attr-defined]
            if point == "after_C":
                assert one["state"] == "delivered"
                return
            assert (one["state"], one["reason"]) == ("queued", "in_doubt")
            assert relay.ask("retry", **{**_all(), "transport": "out"}) == 1
            assert relay.ended(one["id"])[0]["state"] == "delivered"
            assert hop.taken() == [one["id"]] * (sent + 1)
        finally:
            relay.__exit__()


def test_after_three_doubts_it_is_held_and_never_failed(relay: Mortal, ses: StandIn) -> None:
    relay.live("after_sending")
    send(relay)
    relay.died()
    for _ in range(2):
        relay.live("after_sending")
        relay.ask("retry", **_all())
        relay.died()
    relay.live()
    (one,) = relay.the_message()["deliveries"]  # type: ignore[attr-defined]
    assert (one["state"], one["reason"]) == ("held", "in_doubt")
    assert len(ses.journal()) == 3
    assert relay.run("queue", "release", str(one["id"])).returncode == 0
    assert relay.ended(one["id"])[0]["state"] == "delivered"


def test_after_c_it_is_done_and_the_bounce_exists_once(relay: Mortal, ses: StandIn) -> None:
    ses.tell(script=[{"name": "error", "code": "MessageRejected", "text": "Transaction failed: Missing start boundary"}])
    relay.live("after_C")
    send(relay)
    relay.died()
    relay.live()
    wait_for("the bounce", ses.journal)
    (one,) = relay.the_message()["deliveries"]  # type: ignore[attr-defined]
    assert one["state"] == "failed"
    reports = [each for each in relay.ask("recent", limit=10) if not each["sender"]]
    assert len(reports) == 1
    relay.ended(reports[0]["id"])
    assert [taken["source"] for taken in ses.journal()] == ["mailer-daemon@example.com"]


REJECTED = {"name": "error", "code": "MessageRejected", "text": "Transaction failed: Missing start boundary"}
NO_ADDRESS = {"name": "error", "code": "InvalidParameterValue", "text": "Domain contains illegal character: <a@example.com>"}


@pytest.mark.parametrize(
    ("point", "answers"),
    [("inside_C", [REJECTED, NO_ADDRESS]), ("inside_second_C", [NO_ADDRESS]), ("inside_third_C", []), ("after_folder", [])],
)
def test_a_bounce_on_its_way_down_exists_once_wherever_the_process_dies(
    relay: Mortal, ses: StandIn, tmp_path: Path, point: str, answers: list[dict[str, str]]
) -> None:
    ses.tell(script=[REJECTED, NO_ADDRESS])
    relay.live(point)
    send(relay)
    relay.died()
    ses.tell(script=answers)
    relay.live()
    relay.ask("retry", **_everything())

    def ended() -> bool:
        relay.ask("retry", **_everything())
        return bool(relay.ask("summary")["deliveries"] == 0)

    wait_for("it is over", ended)
    reports = [each for each in relay.ask("recent", limit=10) if not each["sender"]]
    assert len(reports) == 2, "the bounce, and the same on its last rung"
    assert len(list((tmp_path / "state" / "undeliverable" / "new").iterdir())) == 1
    assert ses.journal() == []


def _everything() -> dict[str, object]:
    return {**_all(), "transport": None, "states": ["queued"]}


def _all() -> dict[str, object]:
    return {"ids": [], "states": [], "sender": None, "recipient": None, "transport": "ses-main", "older_than": None}

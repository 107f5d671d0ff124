"""A relay whose access key is exchanged while it runs, and mail to SES's simulator: the real process before the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iam_world import IamWorld, iam_world, moto_server
from relay_process import Relay

MORE = '  - {sender: plain.example, transport: park}\nlisteners: [{listen: "127.0.0.1:0"}]\nhttp: {listen: "127.0.0.1:0"}\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IamWorld]:
    with moto_server() as moto:
        for world in iam_world(tmp_path, moto, monkeypatch, MORE):
            text = world.world.config.read_text().replace(
                "routes:", f"  park: {{type: hold}}\ncontrol: {tmp_path}/control.sock\nroutes:"
            )
            world.world.config.write_text(text)
            yield world


class AsWritten(Relay):
    """The relay with the configuration that is there."""

    def write(self, more: str) -> None:
        """Leave it."""


def test_a_running_relay_goes_on_with_the_new_key(here: IamWorld) -> None:
    assert here.run("create").code == 0
    here.use_keys()
    (old,) = here.ids()
    with AsWritten(here.folder, "") as relay:
        relay.ended(relay.submit("a@example.com", "b@example.org"))
        done = here.administrator("rotate", "--grace", "0s")
        assert done.code == 0, done.err
        assert here.ids() == [here.text("main.access-key-id")] != [old]
        (delivery,) = relay.ended(relay.submit("a@example.com", "b@example.org"))
        assert delivery["state"] == "delivered"
        assert len(here.world.ses.journal) == 3  # two messages and the proof


def test_a_relay_that_cannot_take_up_the_new_key_keeps_the_old_one(here: IamWorld) -> None:
    assert here.run("create").code == 0
    here.use_keys()
    with AsWritten(here.folder, "") as relay:
        text = here.world.config.read_text()
        here.world.config.write_text(text.replace(f"{here.folder}/state", f"{here.folder}/elsewhere"))
        kept = here.administrator("rotate", "--grace", "0s")
        assert kept.code == 75, kept.err
        assert "state_dir cannot change while the daemon runs" in kept.err
        assert "--finish" in kept.err
        assert len(here.ids()) == 2
        (delivery,) = relay.ended(relay.submit("a@example.com", "b@example.org"))
        assert delivery["state"] == "delivered"


def test_the_simulator(here: IamWorld) -> None:
    assert here.run("create").code == 0
    here.use_keys()
    with AsWritten(here.folder, ""):
        for kind in ("success", "bounce", "complaint", "ooto", "suppressionlist"):
            done = here.world.run("send", "--from", "a@example.com", "--simulator", kind)
            assert done.code == 0, done.err
            assert done.out.startswith("queued as ")
            assert "the simulator accepts it" in done.err
            assert here.world.ses.journal[-1].destinations == (f"{kind}@simulator.amazonses.com",)
    for args in (["--simulator", "success", "--to", "b@example.org"], [], ["--simulator", "hard"]):
        assert here.world.run("send", "--from", "a@example.com", *args).code == 64
    elsewhere = here.world.run("send", "--from", "a@plain.example", "--simulator", "success")
    assert elsewhere.code == 1
    assert "leaves by park" in elsewhere.err

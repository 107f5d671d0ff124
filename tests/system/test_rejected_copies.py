"""What SES rejects for what it is bounces, and a copy stays for the operator; what it refuses for other reasons leaves none."""

from __future__ import annotations

from pathlib import Path

import pytest

from batches import HELLO, Bytes, batch
from engine_rig import Witness
from relay_process import KEY, SECRET, Relay, StandIn, ses_transport
from sesrelay.transport import folder
from sesrelay.transport.folder import RejectedFolder

VIRUS = {"name": "error", "code": "MessageRejected", "text": "Transaction failed: Message contains a virus", "status": 400}
UNKNOWN = {"name": "error", "code": "InvalidParameterValue", "text": "Illegal header", "status": 400}


@pytest.mark.parametrize("api", ["v1", "v2"])
def test_a_copy_of_what_ses_rejects_is_kept(tmp_path: Path, api: str) -> None:
    with (
        StandIn({"keys": {KEY: SECRET}}) as ses,
        Relay(
            tmp_path, f"transports:\n{ses_transport('ses-main', ses.url, api=api)}\ndefault_route: {{transport: ses-main}}"
        ) as relay,
    ):
        ses.tell(script=[VIRUS])
        queue_id = relay.submit("app@example.com", "you@example.org")
        (delivery,) = relay.ended(queue_id)
        assert (delivery["state"], delivery["reply"][:9]) == ("failed", "554 5.7.1")
        (kept,) = (tmp_path / "state" / "rejected" / "new").iterdir()
        assert kept.name == f"{queue_id}.relay.example.net"
        text = kept.read_bytes()
        assert text.startswith(b"Return-Path: <app@example.com>\nReceived: ")
        (said,) = [one for one in relay.events("notice") if "rejected a message" in str(one)]
        assert str(kept) in str(said)
        ses.tell(script=[UNKNOWN])
        relay.ended(relay.submit("app@example.com", "you@example.org"))
        assert len(list(kept.parent.iterdir())) == 1


async def test_copies_fill_no_disk_and_hold_up_no_bounce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "LIMIT", 1)
    witness, message = Witness(), batch().message
    kept = RejectedFolder(tmp_path / "rejected", "relay.example.net", witness)  # type: ignore[arg-type]
    for _ in range(2):
        await kept.keep(message, Bytes(HELLO))
    assert folder.count(tmp_path / "rejected") == 1
    assert "is full" in str(witness.events("notice")[1])
    (tmp_path / "file").touch()
    await RejectedFolder(tmp_path / "file", "relay.example.net", witness).keep(message, Bytes(HELLO))  # type: ignore[arg-type]
    assert "cannot be kept" in str(witness.events("trouble"))

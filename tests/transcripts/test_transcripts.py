"""Golden SMTP dialogues: each is fed whole, byte by byte and in random pieces, on both event loops.

A line `C:` is what the client says, CR LF added; `C\\` the same with Python's escapes and no line end added. `S:` is
what the server says, `*` standing for anything. `M:` is a message that the intake got: sender (and when it is to leave), recipients, content.
`O:` sets options of the listener.
"""

from __future__ import annotations

import fnmatch
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sesrelay.mail.envelope import Envelope
from transcripts.listener_rig import LOOPS, options, rig, run

HERE = Path(__file__).parent


@dataclass
class Dialogue:
    said: bytes = b""
    heard: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


def read(path: Path) -> Dialogue:
    dialogue = Dialogue()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        kind, text = line[:2], line[3:]
        match kind:
            case "C:":
                dialogue.said += text.encode() + b"\r\n"
            case "C\\":
                dialogue.said += text.encode("latin-1").decode("unicode_escape").encode("latin-1")
            case "S:":
                dialogue.heard.append(text)
            case "M:":
                dialogue.messages.append(text)
            case "O:":
                name, _, value = text.partition("=")
                dialogue.options[name] = int(value) if value.isdecimal() else value
            case _:
                assert not line or line.startswith("#"), f"{path.name}:{number}: {line}"
    return dialogue


def whole(said: bytes) -> list[bytes]:
    return [said]


def bytewise(said: bytes) -> list[bytes]:
    return [said[i : i + 1] for i in range(len(said))]


def in_pieces(said: bytes) -> list[bytes]:
    chance = random.Random(len(said))
    cuts = sorted(chance.sample(range(len(said)), min(len(said) // 12 + 1, len(said))))
    return [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True) if a < b]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("split", [whole, bytewise, in_pieces])
@pytest.mark.parametrize("path", sorted(HERE.glob("*.smtp")), ids=lambda path: path.stem)
def test_dialogue(path: Path, split: Callable[[bytes], list[bytes]], loop: str) -> None:
    dialogue = read(path)

    async def main() -> None:
        async with rig(options(**dialogue.options)) as at:
            heard = (await at.say(split(dialogue.said))).decode("ascii")
            messages = [
                f"<{envelope.sender}>{_release(envelope)} {','.join(_recipient(r) for r in envelope.recipients)} {content!r}"
                for envelope, content, _ in at.intake.taken
            ]
        lines = heard.split("\r\n")
        assert lines.pop() == ""
        for got, wanted in zip(lines, dialogue.heard, strict=False):
            assert fnmatch.fnmatchcase(got, wanted.replace("[", "[[]")), "\n".join(lines)
        assert len(lines) == len(dialogue.heard), "\n".join(lines)
        assert messages == dialogue.messages
        assert at.observer.connections == 1
        assert at.observer.open == 0

    run(loop, main())


def _release(envelope: Envelope) -> str:
    return "" if envelope.release is None else f"({envelope.release:.0f})"


def _recipient(recipient: Any) -> str:
    extra = "".join(
        f"[{name}]"
        for name in (",".join(sorted(recipient.notify)) if recipient.notify is not None else "", recipient.orcpt, recipient.hold)
        if name
    )
    return f"<{recipient.address}>{extra}"


def test_every_refusal_has_an_enhanced_code() -> None:
    for path in HERE.glob("*.smtp"):
        for line in read(path).heard:
            if re.match(r"[45]\d\d", line):
                assert re.match(rf"{line[0]}\d\d[ -]{line[0]}\.\d\.\d", line), f"{path.name}: {line}"

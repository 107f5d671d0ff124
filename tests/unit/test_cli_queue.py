"""`sesrelay queue` where there is nothing to look at, and what a person is told then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aws_world import Said, sesrelay
from sesrelay.control.desk import SpoolDesk
from sesrelay.mail.trace import Event
from sesrelay.seams import Settlement
from somebody import UNNAMED, somebody
from spool_world import NOW, SES, deferred, delivered, ids, opened, submission


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder that other users can look into, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def config(folder: Path, more: str = "") -> Path:
    file = folder / "config.yaml"
    file.write_text(f"state_dir: {folder}/state\ncontrol: {folder}/control.sock\ndefault_route: {{reject: true}}\n{more}")
    file.chmod(0o644)
    return file


def queue(folder: Path, *args: str) -> Said:
    return sesrelay("queue", *args, "--config", folder / "config.yaml")


def make_queue(folder: Path) -> None:
    async def make() -> None:
        await (await opened(folder / "state")).close()

    asyncio.run(make())


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """Be held to modes of files meanwhile, as root is not."""
    with somebody(UNNAMED) if os.geteuid() == 0 else contextlib.nullcontext():
        yield


def test_where_no_daemon_has_ever_run_there_is_no_queue_rather_than_an_empty_one(folder: Path) -> None:
    config(folder)
    said = queue(folder, "list")
    assert (said.code, said.out) == (0, "")
    assert f"there is no queue yet: state_dir {folder}/state does not exist" in said.err
    assert str(folder / "config.yaml") in said.err, "the configuration may be another one than the daemon's"
    assert "empty" not in said.err
    (folder / "state").mkdir()
    said = queue(folder, "list", "--state", "held")
    assert (said.code, said.out) == (0, "")
    assert said.err == f"sesrelay: there is no queue yet in {folder}/state: the daemon makes it when it first starts\n"
    for verb in (("summary",), ("show", "0" * 13), ("release", "--state", "held"), ("export", str(folder / "out"))):
        assert f"there is no queue yet in {folder}/state" in queue(folder, *verb).err


def test_without_a_queue_the_documents_are_whole_all_the_same(folder: Path) -> None:
    config(folder)
    listed, summed = queue(folder, "list", "--json"), queue(folder, "summary", "--json")
    assert (listed.code, listed.json) == (0, [])
    assert (summed.code, summed.json["messages"], summed.json["by_transport"]) == (0, 0, {})
    assert "there is no queue yet" in listed.err
    assert "there is no queue yet" in summed.err


def test_an_empty_queue_is_told_from_none(folder: Path) -> None:
    config(folder)
    make_queue(folder)
    said = queue(folder, "list")
    assert (said.code, said.out, said.err) == (0, "", "The queue is empty.\n")


def test_a_queue_that_is_not_for_this_user_says_what_to_do(folder: Path) -> None:
    config(folder)
    make_queue(folder)
    queue(folder, "list")  # imports all, which others could not read here
    (folder / "state/lock").chmod(0o400)  # another user's, for whoever runs this as its owner
    for mode in (0o000, 0o555) if os.geteuid() else (0o700, 0o755):  # shut; to be looked into, and not to be locked
        (folder / "state").chmod(mode)
        with another_user():
            said = queue(folder, "list")
        (folder / "state").chmod(0o700)
        assert (said.code, said.out) == (75, "")
        assert f"{folder}/state" in said.err
        assert "ermission denied" in said.err
        assert "run this as root (sudo)" in said.err
        assert "while the daemon runs" in said.err


def test_which_ids_are_known_is_one_question(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config(folder)
    done, waiting = submission(1), submission(2)

    async def make() -> None:
        spool = await opened(folder / "state")
        for each in (done, waiting):
            await spool.accept(each)
        await spool.settle(Settlement({each: delivered() for each in ids(done)}, attempted=False))
        await spool.close()

    async def show(desk: SpoolDesk, queue_id: str) -> None:
        raise AssertionError("it is asked for one by one")

    asyncio.run(make())
    monkeypatch.setattr(SpoolDesk, "show", show)
    known = [each.message.id for each in (done, waiting)]
    unknown = ["0" * 13, "nonsense"]
    said = queue(folder, "hold", *known, *unknown)
    assert (said.code, said.out) == (1, "")
    assert said.err == f"no such message: {', '.join(unknown)}; nothing was changed\n"
    assert queue(folder, "hold", *known).out == "1 deliveries changed\n", "what has ended is known, and stays as it is"


# --- filters that nothing can match ---


@pytest.fixture
def kept(folder: Path) -> Path:
    """A queue with one message that waits for a transport which the configuration does not have any more."""
    config(folder, "transports: {main: {type: discard}}\n")

    async def make() -> None:
        spool = await opened(folder / "state")
        await spool.accept(submission(1))
        await spool.close()

    asyncio.run(make())
    return folder


@pytest.mark.parametrize(
    ("chosen", "warning"),
    [
        (("--transport", "mian"), "there is no transport mian; there are: direct, main, ses, undeliverable"),
        (("--transport", "MAIN"), "there is no transport MAIN; there are: direct, main, ses, undeliverable"),
        (("--sender", "example.com"), "--sender example.com matches no address (*@example.com matches the whole domain)"),
        (("--recipient", "bob"), "--recipient bob matches no address (use one like bob@example.com, or *@example.com)"),
        (("--sender", "*"), "--sender * matches no address (use one like bob@example.com, or *@example.com)"),
        (("--sender", "*@*.example.com"), "--sender *@*.example.com matches no address (use one like bob@example.com, or *@example.com)"),
        (("--sender", "a@b c.example"), "--sender a@b c.example matches no address (use one like bob@example.com, or *@example.com)"),
        (("--sender", "al*@example.com"), "--sender al*@example.com is one address with a * in it (*@example.com matches a whole domain)"),
    ],
)  # fmt: skip
def test_a_filter_that_can_match_nothing_is_told_of(kept: Path, chosen: tuple[str, ...], warning: str) -> None:
    for verb, out in (("list", ""), ("hold", "0 deliveries changed\n"), ("export", f"0 messages exported to {kept}/out\n")):
        said = queue(kept, verb, *([f"{kept}/out"] if verb == "export" else []), *chosen)
        assert (said.code, said.out) == (0, out)
        assert [line for line in said.err.splitlines() if line != "Nothing matches."] == [f"sesrelay: {warning}"]
    listed = queue(kept, "list", "--json", *chosen)
    assert (listed.code, listed.json, listed.err) == (0, [], f"sesrelay: {warning}\n")
    said = queue(kept, "hold", "--future", *chosen)
    assert (said.code, said.err) == (0, f"sesrelay: {warning}\n")


def test_what_could_match_is_not_told_of(kept: Path) -> None:
    for chosen in (
        ("--transport", "ses"), ("--transport", "main"), ("--transport", "direct"), ("--transport", "undeliverable"),
        ("--sender", "<>"), ("--sender", ""), ("--sender", "root@host"), ("--recipient", "@example.net"), ("--recipient", "ä@ö.example"),
        ("--sender", '"a b"@example.com'), ("--older-than", "900d"),
    ):  # fmt: skip
        said = queue(kept, "list", *chosen)
        assert (said.code, said.err) == (0, "" if said.out else "Nothing matches.\n"), chosen


def test_one_warning_at_most_for_each_option_and_none_where_something_matches(kept: Path) -> None:
    assert queue(kept, "list", "--transport", "ses", "--sender", "*@example.com").err == ""
    said = queue(kept, "list", "--transport", "x", "--sender", "y", "--recipient", "z")
    assert len(said.err.splitlines()) == 4


def test_what_strangers_wrote_does_not_steer_the_terminal(folder: Path) -> None:
    config(folder)
    hostile = "\x1b]0;title\x07"
    made = submission(1, sender=f"{hostile}@example.com", recipients=[f"{hostile}@example.org"])
    attempt = Event(NOW, "attempt", f"{hostile}@example.org", *SES, reply=f"451 {hostile}")

    async def make() -> None:
        spool = await opened(folder / "state")
        await spool.accept(replace(made, events=(*made.events, attempt)))
        await spool.settle(Settlement({each: replace(deferred(), reply=f"451 {hostile}") for each in ids(made)}, attempted=False))
        await spool.close()

    asyncio.run(make())
    name = made.message.id
    for said in (queue(folder, "list"), queue(folder, "show", name), sesrelay("trace", name, "--config", folder / "config.yaml")):
        assert (said.code, "\x1b" in said.out, "\x07" in said.out) == (0, False, False), said.out
        assert r"\x1b]0;title\x07@example.org" in said.out
        assert r"451 \x1b]0;title\x07" in said.out

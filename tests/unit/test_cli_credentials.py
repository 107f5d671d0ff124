"""`sesrelay credentials` against moto's IAM and an SES that takes the keys of that IAM and no others."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from iam_evaluator import allowed
from iam_world import ACCOUNT, USER, IamWorld, iam_world, moto_server
from sesrelay.aws.smtp_password import derive
from sesrelay.setup.files import NewFile, write_files


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def here(tmp_path: Path, moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[IamWorld]:
    yield from iam_world(tmp_path, moto, monkeypatch)


def test_create_writes_files_that_work_and_says_no_secret(here: IamWorld) -> None:
    done = here.run("create")
    assert done.code == 0, done.err
    (key,) = here.ids()
    secret = here.keys[key]
    assert here.text("main.access-key-id") == key
    assert here.text("main.secret") == secret
    assert here.text("main.smtp-password") == derive(secret, "us-east-1")
    for name in ("main.access-key-id", "main.secret", "main.smtp-password"):
        assert stat.S_IMODE((here.folder / name).stat().st_mode) == 0o640
    assert secret not in done.out + done.err
    assert derive(secret, "us-east-1") not in done.out + done.err
    assert f"access_key_id: {key}" in done.out
    assert sorted(path.name for path in here.folder.iterdir() if path.is_file()) == [
        "config.yaml", "main.access-key-id", "main.secret", "main.smtp-password",
    ]  # fmt: skip
    policy = here.iam.get_user_policy(UserName=USER, PolicyName="sesrelay")["PolicyDocument"]
    identity = f"arn:aws:ses:us-east-1:{ACCOUNT}:identity/example.com"
    assert allowed([policy], "ses:SendRawEmail", identity, {"ses:FromAddress": "a@example.com"})
    assert not allowed(
        [policy], "ses:SendRawEmail", identity.replace(ACCOUNT, "210987654321"), {"ses:FromAddress": "a@example.com"}
    )
    here.use_keys()
    assert here.world.run("check").code == 0
    assert "rotate" in here.run("create").err  # a second time nothing is overwritten
    assert here.ids() == [key]


def test_create_makes_nothing_where_it_cannot_write(here: IamWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    assert here.run("create", "--out", here.folder / "missing").code == 1
    assert not here.iam.list_users()["Users"]

    def full(files: object) -> None:
        raise OSError(28, "No space left on device", "main.secret")

    monkeypatch.setattr("sesrelay.setup.key_files.write_files", full)
    done = here.run("create")
    assert done.code == 1
    assert "deleted again" in done.err
    assert here.ids() == []
    monkeypatch.undo()


def test_create_leaves_a_users_key_alone(here: IamWorld) -> None:
    here.iam.create_user(UserName=USER)
    here.iam.create_access_key(UserName=USER)
    assert "already has an access key" in here.run("create").err
    assert len(here.ids()) == 1
    assert here.run("create", "--user", "another", "--domain", "example.org").code == 0
    assert len(here.ids("another")) == 1


def test_a_large_policy_is_a_managed_one(here: IamWorld) -> None:
    domains = [word for n in range(40) for word in ("--domain", f"domain-number-{n}.example")]
    assert here.run("create", *domains).code == 0
    (attached,) = here.iam.list_attached_user_policies(UserName=USER)["AttachedPolicies"]
    assert attached["PolicyName"] == USER
    assert here.iam.list_user_policies(UserName=USER)["PolicyNames"] == []
    refused = here.run(
        "create", "--user", "other", "--out", here.folder / "..", *[w.replace("number", "n" * 40) for w in domains], *domains
    )
    assert refused.code == 1
    assert "fewer" in refused.err


def test_rotate_keeps_the_old_key_until_the_new_one_has_sent(here: IamWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    here.run("create")
    here.use_keys()
    (old,) = here.ids()
    old_secret = here.text("main.secret")
    at_send: list[list[str]] = []
    admit = here.world.ses.account.admit
    monkeypatch.setattr(
        here.world.ses.account, "admit", lambda *args, **more: (at_send.append(here.ids()), admit(*args, **more))[1]
    )
    here.keys.settling = 1  # IAM has not told everybody yet
    here.world.config.chmod(0o604)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    done = here.administrator("rotate")
    assert done.code == 0, done.err
    (new,) = here.ids()
    assert new != old
    assert [(old in ids, new in ids) for ids in at_send] == [(True, True)]
    assert here.text("main.secret") == here.keys[new] != old_secret
    assert here.text("main.access-key-id") == new
    assert here.text("main.smtp-password") == derive(here.keys[new], "us-east-1")
    assert f"access_key_id: {new}" in here.world.config.read_text()
    assert old not in here.world.config.read_text()
    assert stat.S_IMODE(here.world.config.stat().st_mode) == 0o604  # as it was
    assert here.keys[new] not in done.out + done.err
    (taken,) = here.world.ses.journal
    assert (taken.source, taken.destinations) == ("postmaster@example.com", ("success@simulator.amazonses.com",))
    assert here.world.run("check").code == 0


def test_a_new_key_that_cannot_send_changes_nothing(here: IamWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    here.run("create")
    here.use_keys()
    before = {path.name: path.read_text() for path in here.folder.iterdir() if path.is_file()}
    (old,) = here.ids()
    here.world.ses.account.verified = frozenset()
    refused = here.administrator("rotate")
    assert refused.code == 1
    assert "not verified" in refused.err
    here.keys.settling = 1000
    assert here.administrator("rotate", "--patience", "0s").code == 1
    assert here.ids() == [old]
    assert {path.name: path.read_text() for path in here.folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("verb", ["create", "rotate"])
def test_what_ends_the_verb_once_the_key_is_kept_leaves_it(here: IamWorld, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    if verb == "rotate":
        here.run("create")
        here.use_keys()
    before = here.ids() if verb == "rotate" else []

    def interrupted(files: list[NewFile]) -> None:
        write_files(files)
        raise KeyboardInterrupt

    monkeypatch.setattr("sesrelay.setup.key_files.write_files", interrupted)
    done = here.run(verb)
    assert (done.code, "rotate --finish" in done.err) == (130, True)
    key = here.text("main.access-key-id")
    assert here.keys[key] == here.text("main.secret"), "what the files name is a key"
    assert here.ids() == sorted([*before, key])
    assert here.run("rotate", "--finish").code == 0
    assert here.ids() == [key]


def test_a_key_that_the_files_may_name_is_kept_where_they_cannot_be_read(here: IamWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(files: list[NewFile]) -> None:
        write_files(files)
        key_id = here.folder / "main.access-key-id"
        key_id.rename(here.folder / "moved")
        key_id.mkdir()  # which nobody reads as a file, root included
        raise OSError(errno.EIO, "Input/output error", str(key_id))

    monkeypatch.setattr("sesrelay.setup.key_files.write_files", failing)
    done = here.run("create")
    assert (done.code, "Input/output error" in done.err) == (1, True)
    assert here.ids() == [here.text("moved")]
    assert here.text("moved") in done.err


def test_rotate_and_finish_later(here: IamWorld) -> None:
    here.run("create")
    here.use_keys()
    (old,) = here.ids()
    assert here.administrator("rotate", "--keep-old").code == 0
    assert old in here.ids()
    assert len(here.ids()) == 2
    again = here.administrator("rotate")
    assert again.code == 1
    assert "--finish" in again.err
    here.world.ses.account.verified = frozenset()
    assert here.administrator("rotate", "--finish").code == 1
    assert len(here.ids()) == 2  # the one in use has not sent
    here.world.ses.account.verified = frozenset({"example.com"})
    assert here.administrator("rotate", "--finish").code == 0
    assert here.ids() == [here.text("main.access-key-id")] != [old]


def test_a_secret_that_cannot_be_exchanged_is_said_before_anything_is_made(here: IamWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    here.run("create")
    here.use_keys()
    text = here.world.config.read_text()
    here.world.config.write_text(text.replace("secret_access_key_file: main.secret", "secret_access_key: x"))
    assert "secret_access_key_file" in here.administrator("rotate").err
    key = here.text("main.access-key-id")
    monkeypatch.setenv("RELAY_KEY", key)
    here.world.config.write_text(text.replace(key, "'${RELAY_KEY}'"))
    assert "environment" in here.administrator("rotate").err
    assert here.ids() == [key]


def test_smtp_credentials_are_rotated_too(here: IamWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    here.run("create")
    (old,) = here.ids()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SES", here.world.ses.url)
    here.world.config.write_text(
        "hostname: relay.example.net\ntransports:\n  mailer:\n    {type: smtp, host: email-smtp.us-east-1.amazonaws.com, "
        f"username: {old}, password_file: main.smtp-password}}\nroutes:\n  - {{sender: example.com, transport: mailer}}\n"
    )
    done = here.run("rotate")
    assert done.code == 0, done.err
    (new,) = here.ids()
    assert here.text("main.smtp-password") == derive(here.keys[new], "us-east-1")
    assert f"username: {new}" in here.world.config.read_text()


def test_files_appear_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "missing" / "b"
    first.write_text("old")
    with pytest.raises(OSError, match="missing"):
        write_files([NewFile(first, "new", tmp_path), NewFile(second, "new", tmp_path)])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]
    link = tmp_path / "link"
    link.symlink_to(first)
    write_files([NewFile(link, "new", tmp_path)])
    assert link.is_symlink()
    assert first.read_text() == "new"
    assert stat.S_IMODE(first.stat().st_mode) == 0o640
    assert "canary" not in repr(NewFile(link, "canary", tmp_path))

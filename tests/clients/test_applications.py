"""docs/applications.md: each block that it calls tried is run by the mail code of its application.

A block is read from the page; only host and port become those of the relay under test.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import peers
from clients.doors import Doors
from clients.languages import Drive, Way, drive, mail, node, php, python, ruby
from clients.programs import Letter, git_send_email, run
from clients.sink import Sink, recipients
from relay_process import Relay

PAGE = (Path(__file__).parents[2] / "docs" / "applications.md").read_text(encoding="utf-8")
BLOCKS = {
    name: (kind, text) for kind, name, text in re.findall(r"<!-- (tried|checked): ([\w-]+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
}
NOWHERE = Way("127.0.0.1", 0)  # a driver that takes all of it from the block


@pytest.fixture(scope="module")
def sendmail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program under a path without a blank, which would end its name for who calls it by a shell."""
    program = tmp_path_factory.mktemp("bin") / "sesrelay-sendmail"
    program.symlink_to(Path(sys.executable).with_name(program.name))
    return program


def block(name: str, way: Way, *, address: str = "127.0.0.1") -> str:
    """Return a block with the relay's port and host instead of those in the page."""
    assert BLOCKS[name][0] == "tried"
    assert BLOCKS[name][1].count(address) == 1
    text = BLOCKS[name][1].replace(address, way.host)
    changed, times = re.subn(r"\b25\b", str(way.port), text)
    assert times == 1
    return changed


def environment(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def arrived(sink: Sink, to: str, sender: str) -> None:
    found = sink.message(to)
    assert recipients(found) == {to}
    assert found.mail.startswith(f"MAIL FROM:<{sender}>")


def sent(done: Drive) -> None:
    assert [one["ok"] for one in done.told] == [True], done.told


def wordpress(program: peers.Program, message: dict[str, Any], plugin: str = "") -> Drive:
    folder = peers.ROOT / "usr/share/wordpress"
    if not folder.is_dir():
        peers.missing("WordPress is not here: `make test` unpacks it where apt and a network are")
    return drive(program, "wordpress.php", NOWHERE, message, env={"WORDPRESS": str(folder)}, plugin=plugin)


def by_wordpress(way: Way, to: str, folder: Path) -> Drive:
    plugin = folder / "sesrelay.php"
    plugin.write_text(block("wordpress", way))
    return wordpress(php(), mail("", to), str(plugin))


def by_mediawiki(way: Way, to: str, _: Path) -> Drive:
    text = block("mediawiki", way)
    sender = re.search(r"PasswordSender = '(.*)'", text)
    assert sender
    return drive(php(), "pear.php", NOWHERE, mail(sender[1], to), local_settings=text)


def by_nextcloud(way: Way, to: str, _: Path) -> Drive:
    text = block("nextcloud", way)
    name, domain = (re.search(rf"'{key}' => '(.*)'", text) for key in ("mail_from_address", "mail_domain"))
    assert name
    assert domain
    return drive(php(), "symfony.php", NOWHERE, mail(f"{name[1]}@{domain[1]}", to), nextcloud=text)


def by_laravel(way: Way, to: str, _: Path) -> Drive:
    env = {name: None if value == "null" else value for name, value in environment(block("laravel", way)).items()}
    return drive(php(), "symfony.php", NOWHERE, mail(str(env["MAIL_FROM_ADDRESS"]), to), laravel=env)


def by_mastodon(way: Way, to: str, _: Path) -> Drive:
    env = environment(block("mastodon", way))
    # As Mastodon's production.rb reads them.
    starttls = env.get("SMTP_ENABLE_STARTTLS")
    options = {
        "address": env["SMTP_SERVER"],
        "port": env["SMTP_PORT"],
        "authentication": None if env["SMTP_AUTH_METHOD"] == "none" else env["SMTP_AUTH_METHOD"],
        "openssl_verify_mode": env.get("SMTP_OPENSSL_VERIFY_MODE"),
        "enable_starttls": {"always": True, "never": False}.get(str(starttls)),
        "enable_starttls_auto": None if starttls in ("always", "never") else True,
    }
    return drive(ruby(), "action_mailer.rb", NOWHERE, mail(env["SMTP_FROM_ADDRESS"], to), options=options)


def by_discourse(way: Way, to: str, _: Path) -> Drive:
    env = yaml.safe_load(block("discourse", way, address="172.17.0.1"))["env"]
    options = {
        "address": env["DISCOURSE_SMTP_ADDRESS"],
        "port": env["DISCOURSE_SMTP_PORT"],
        # As Discourse's GlobalSetting has it: a mechanism only where a user or a password is set.
        "enable_starttls_auto": True,
        "openssl_verify_mode": env["DISCOURSE_SMTP_OPENSSL_VERIFY_MODE"],
    }
    return drive(ruby(), "action_mailer.rb", NOWHERE, mail(env["DISCOURSE_NOTIFICATION_EMAIL"], to), options=options)


def by_rails(way: Way, to: str, _: Path) -> Drive:
    return drive(ruby(), "action_mailer.rb", NOWHERE, mail("rails@example.net", to), rails=block("rails", way))


def by_django(way: Way, to: str, _: Path) -> Drive:
    return drive(python(), "django_mail.py", NOWHERE, mail("", to), project=block("django", way))


def by_ghost(way: Way, to: str, _: Path) -> Drive:
    settings = json.loads(block("ghost", way))["mail"]
    assert settings["transport"] == "SMTP"
    return drive(node(), "nodemailer.js", NOWHERE, mail(settings["from"], to), options=settings["options"])


def by_git(way: Way, to: str, folder: Path) -> Drive:
    (folder / ".gitconfig").write_text(block("git", way))
    done = git_send_email(way, Letter("dev@example.net", (to,)), folder, configured=True)
    return Drive([{"ok": done.code == 0, "error": done.said}])


# By the name of the block: the sender that its settings mean.
APPLICATIONS: dict[str, tuple[Callable[[Way, str, Path], Drive], str]] = {
    "wordpress": (by_wordpress, "blog@example.net"),
    "mediawiki": (by_mediawiki, "wiki@example.net"),
    "nextcloud": (by_nextcloud, "cloud@example.net"),
    "laravel": (by_laravel, "app@example.net"),
    "mastodon": (by_mastodon, "notifications@example.net"),
    "discourse": (by_discourse, "forum@example.net"),
    "rails": (by_rails, "rails@example.net"),
    "django": (by_django, "app@example.net"),
    "ghost": (by_ghost, "blog@example.net"),
    "git": (by_git, "dev@example.net"),
}
# Symfony Mailer cannot be told to leave STARTTLS alone.
EAGER = {"nextcloud", "laravel"}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_sends_by_its_block(name: str, way: Way, sink: Sink, tmp_path: Path) -> None:
    send, sender = APPLICATIONS[name]
    sent(send(way, f"{name}@example.org", tmp_path))
    arrived(sink, f"{name}@example.org", sender)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_certificate_that_nobody_trusts(name: str, doors: Doors, tmp_path: Path) -> None:
    """What the page says of TLS: which blocks keep it off, and which applications cannot."""
    done = APPLICATIONS[name][0](doors.untrusted, f"{name}.tls@example.org", tmp_path)
    # The sender's domain is another user's there: a refusal shows that all before it went well.
    (told,) = done.told
    assert not told["ok"]
    assert ("5.7.1" in told["error"]) == (name not in EAGER), told


def submit(way: Way) -> dict[str, str]:
    return {"SESRELAY_SUBMIT": f"{way.host}:{way.port}"}


def test_gitea_by_the_sendmail_program(way: Way, sink: Sink, sendmail: Path) -> None:
    ini = configparser.ConfigParser()
    ini.read_string(BLOCKS["gitea-sendmail"][1])
    mailer = ini["mailer"]
    assert mailer["SENDMAIL_PATH"] == "/usr/bin/sesrelay-sendmail"
    # Gitea's command line.
    args = ["-f", mailer["FROM"], "-i", *shlex.split(mailer["SENDMAIL_ARGS"]), "gitea@example.org"]
    text = b"From: gitea@example.net\nTo: gitea@example.org\nSubject: x\n\nHello\n.\n"
    done = run(peers.Program(sendmail, {}), *args, text=text, env=submit(way))
    assert done.code == 0, done.said
    arrived(sink, "gitea@example.org", "gitea@example.net")


@pytest.fixture
def php_with_sendmail(way: Way, sendmail: Path) -> peers.Program:
    """PHP by the line of php.ini that stands in the page."""
    line = BLOCKS["php"][1].strip()
    assert "/usr/bin/sesrelay-sendmail" in line
    program = php()
    setting = line.replace("/usr/bin/sesrelay-sendmail", str(sendmail)).replace(" = ", "=")
    # PHP starts it by sh, which must not find our libraries.
    return peers.Program(program.path, {**program.env, **submit(way)}, (*program.first, "-d", setting))


def test_php_mail(php_with_sendmail: peers.Program, sink: Sink) -> None:
    to, hidden = "php@example.org", "php.hidden@example.org"
    text = "Grüße\n.\n..two dots\nthe end"
    sent(drive(php_with_sendmail, "php_mail.php", NOWHERE, mail("php@example.net", to, bcc=[hidden], text=text)))
    found = sink.message(to)
    assert recipients(found) == {to, hidden}
    assert b"hidden" not in found.content
    assert text.encode().replace(b"\n", b"\r\n") in found.content


def test_php_mail_is_false_where_the_sender_is_refused(php_with_sendmail: peers.Program) -> None:
    done = drive(php_with_sendmail, "php_mail.php", NOWHERE, mail("php@refused.example", "b@example.org"))
    assert not done.told[0]["ok"]


def test_wordpress_by_php_mail(php_with_sendmail: peers.Program, sink: Sink) -> None:
    """The envelope's sender is the process's user; the header From takes the mail its way."""
    to = "wordpress.mail@example.org"
    sent(wordpress(php_with_sendmail, mail("blog@example.net", to)))
    found = sink.message(to)
    assert recipients(found) == {to}
    assert b"From: Blog <blog@example.net>" in found.content


@pytest.mark.parametrize("command", ["-t -i", "-bs"])
def test_symfony_by_the_sendmail_program(command: str, way: Way, sink: Sink, sendmail: Path) -> None:
    """Nextcloud's mail_smtpmode sendmail, in both of its modes, and Laravel's."""
    to = f"symfony{command[1]}@example.org"
    message = mail("cloud@example.net", to, text="Hello\n.\nthe end\n")
    sent(drive(php(), "symfony.php", NOWHERE, message, sendmail=f"{sendmail} {command}", env=submit(way)))
    arrived(sink, to, "cloud@example.net")


def test_ruby_by_the_sendmail_program(way: Way, sink: Sink, sendmail: Path) -> None:
    message = mail("rails@example.net", "ruby.sendmail@example.org")
    settings = {"location": str(sendmail), "arguments": "-i"}
    sent(drive(ruby(), "action_mailer.rb", NOWHERE, message, sendmail=settings, env=submit(way)))
    arrived(sink, "ruby.sendmail@example.org", "rails@example.net")


def test_nodemailer_by_the_sendmail_program(way: Way, sink: Sink, sendmail: Path) -> None:
    message = mail("node@example.net", "node.sendmail@example.org")
    settings = {"sendmail": True, "newline": "unix", "path": str(sendmail)}
    sent(drive(node(), "nodemailer.js", NOWHERE, message, options=settings, env=submit(way)))
    arrived(sink, "node.sendmail@example.org", "node@example.net")


def test_git_by_the_sendmail_program(way: Way, sink: Sink, sendmail: Path, tmp_path: Path) -> None:
    letter = Letter("dev@example.net", ("git.sendmail@example.org",))
    (tmp_path / ".gitconfig").write_text(f"[sendemail]\n    smtpServer = {sendmail}\n    envelopeSender = auto\n")
    done = git_send_email(way, letter, tmp_path, configured=True, env=submit(way))
    assert done.code == 0, done.said
    arrived(sink, "git.sendmail@example.org", "dev@example.net")


@pytest.mark.parametrize("name", ["containers", "socket", "password"])
def test_the_configuration_is_one(name: str, relay: Relay, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(BLOCKS[name][1])
    done = run(peers.Program(Path(sys.executable).with_name("sesrelay"), dict(relay.env)), "check", "--config", config)
    assert done.code == 0, done.said


def test_every_block_that_claims_to_be_tried_is() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    claimed = {name for name, (kind, _) in BLOCKS.items() if kind == "tried"}
    assert len(claimed) >= 12
    assert {name for name in claimed if f'block("{name}"' not in source and f'BLOCKS["{name}"]' not in source} == set()

"""docs/applications.md: each block that it calls tried is run by the mail code of its application.

A block is read from the page; only the port (and the address, where it is Docker's) becomes that of the relay under test.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import peers
from clients.languages import Drive, Way, drive, mail, node, php, python, ruby
from clients.programs import Letter, git_send_email, run
from clients.sink import Sink, recipients
from relay_process import Relay

PAGE = (Path(__file__).parents[2] / "docs" / "applications.md").read_text(encoding="utf-8")
BLOCKS = {
    name: (kind, text) for kind, name, text in re.findall(r"<!-- (tried|checked): ([\w-]+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
}
SENDMAIL = Path(sys.executable).with_name("sesrelay-sendmail")
NOWHERE = Way("127.0.0.1", 0)  # a driver that takes all of it from the block


def block(name: str, way: Way, *, address: str = "") -> str:
    """Return a block with the relay's port, and its host where `address` stands in the page."""
    text = BLOCKS[name][1]
    if address:
        assert text.count(address) == 1
        text = text.replace(address, way.host)
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


def test_wordpress(way: Way, sink: Sink, tmp_path: Path) -> None:
    plugin = tmp_path / "sesrelay.php"
    plugin.write_text(block("wordpress", way))
    sent(wordpress(php(), mail("", "wordpress@example.org"), str(plugin)))
    arrived(sink, "wordpress@example.org", "blog@example.net")


def test_mediawiki(way: Way, sink: Sink) -> None:
    text = block("mediawiki", way)
    sender = re.search(r"PasswordSender = '(.*)'", text)
    assert sender
    sent(drive(php(), "pear.php", NOWHERE, mail(sender[1], "mediawiki@example.org"), local_settings=text))
    arrived(sink, "mediawiki@example.org", "wiki@example.net")


def test_nextcloud(way: Way, sink: Sink) -> None:
    text = block("nextcloud", way)
    sent(drive(php(), "symfony.php", NOWHERE, mail("cloud@example.net", "nextcloud@example.org"), nextcloud=text))
    arrived(sink, "nextcloud@example.org", "cloud@example.net")


def test_laravel(way: Way, sink: Sink) -> None:
    env = {name: None if value == "null" else value for name, value in environment(block("laravel", way)).items()}
    sent(drive(php(), "symfony.php", NOWHERE, mail(str(env["MAIL_FROM_ADDRESS"]), "laravel@example.org"), laravel=env))
    arrived(sink, "laravel@example.org", "app@example.net")


def test_mastodon(way: Way, sink: Sink) -> None:
    env = environment(block("mastodon", way))
    # As Mastodon's production.rb reads them.
    starttls = env.get("SMTP_ENABLE_STARTTLS")
    options = {
        "address": env["SMTP_SERVER"],
        "port": env["SMTP_PORT"],
        "authentication": None if env["SMTP_AUTH_METHOD"] == "none" else env["SMTP_AUTH_METHOD"],
        "openssl_verify_mode": env["SMTP_OPENSSL_VERIFY_MODE"],
        "enable_starttls": {"always": True, "never": False}.get(str(starttls)),
        "enable_starttls_auto": True if starttls == "auto" else None,
    }
    sent(drive(ruby(), "action_mailer.rb", NOWHERE, mail(env["SMTP_FROM_ADDRESS"], "mastodon@example.org"), options=options))
    arrived(sink, "mastodon@example.org", "notifications@example.net")


def test_discourse(way: Way, sink: Sink) -> None:
    env = yaml.safe_load(block("discourse", way, address="172.17.0.1"))["env"]
    options = {
        "address": env["DISCOURSE_SMTP_ADDRESS"],
        "port": env["DISCOURSE_SMTP_PORT"],
        "authentication": "plain",  # Discourse's default
        "enable_starttls_auto": env["DISCOURSE_SMTP_ENABLE_START_TLS"],
    }
    sender = env["DISCOURSE_NOTIFICATION_EMAIL"]
    sent(drive(ruby(), "action_mailer.rb", NOWHERE, mail(sender, "discourse@example.org"), options=options))
    arrived(sink, "discourse@example.org", "forum@example.net")


def test_rails(way: Way, sink: Sink) -> None:
    sent(drive(ruby(), "action_mailer.rb", NOWHERE, mail("rails@example.net", "rails@example.org"), rails=block("rails", way)))
    arrived(sink, "rails@example.org", "rails@example.net")


def test_django(way: Way, sink: Sink) -> None:
    sent(drive(python(), "django_mail.py", NOWHERE, mail("", "django@example.org"), project=block("django", way)))
    arrived(sink, "django@example.org", "app@example.net")


def test_ghost(way: Way, sink: Sink) -> None:
    settings = json.loads(block("ghost", way))["mail"]
    assert settings["transport"] == "SMTP"
    sent(drive(node(), "nodemailer.js", NOWHERE, mail(settings["from"], "ghost@example.org"), options=settings["options"]))
    arrived(sink, "ghost@example.org", "blog@example.net")


def test_git(way: Way, sink: Sink, tmp_path: Path) -> None:
    (tmp_path / ".gitconfig").write_text(block("git", way))
    done = git_send_email(way, Letter("dev@example.net", ("git@example.org",)), tmp_path, configured=True)
    assert done.code == 0, done.said
    arrived(sink, "git@example.org", "dev@example.net")


def submit(way: Way) -> dict[str, str]:
    return {"SESRELAY_SUBMIT": f"{way.host}:{way.port}"}


def test_gitea_by_the_sendmail_program(way: Way, sink: Sink) -> None:
    ini = configparser.ConfigParser()
    ini.read_string(BLOCKS["gitea-sendmail"][1])
    mailer = ini["mailer"]
    assert mailer["SENDMAIL_PATH"] == "/usr/bin/sesrelay-sendmail"
    # Gitea's command line.
    args = ["-f", mailer["FROM"], "-i", *shlex.split(mailer["SENDMAIL_ARGS"]), "gitea@example.org"]
    text = b"From: gitea@example.net\nTo: gitea@example.org\nSubject: x\n\nHello\n.\n"
    done = run(peers.Program(SENDMAIL, {}), *args, text=text, env=submit(way))
    assert done.code == 0, done.said
    arrived(sink, "gitea@example.org", "gitea@example.net")


@pytest.fixture
def php_with_sendmail(way: Way) -> peers.Program:
    """PHP by the line of php.ini that stands in the page."""
    line = BLOCKS["php"][1].strip()
    assert "/usr/bin/sesrelay-sendmail" in line
    program = php()
    setting = line.replace("/usr/bin/sesrelay-sendmail", str(SENDMAIL)).replace(" = ", "=")
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
def test_symfony_by_the_sendmail_program(command: str, way: Way, sink: Sink) -> None:
    """Nextcloud's mail_smtpmode sendmail, in both of its modes, and Laravel's."""
    to = f"symfony{command[1]}@example.org"
    message = mail("cloud@example.net", to, text="Hello\n.\nthe end\n")
    sent(drive(php(), "symfony.php", NOWHERE, message, sendmail=f"{SENDMAIL} {command}", env=submit(way)))
    arrived(sink, to, "cloud@example.net")


def test_ruby_by_the_sendmail_program(way: Way, sink: Sink) -> None:
    message = mail("rails@example.net", "ruby.sendmail@example.org")
    settings = {"location": str(SENDMAIL), "arguments": "-i"}
    sent(drive(ruby(), "action_mailer.rb", NOWHERE, message, sendmail=settings, env=submit(way)))
    arrived(sink, "ruby.sendmail@example.org", "rails@example.net")


def test_nodemailer_by_the_sendmail_program(way: Way, sink: Sink) -> None:
    message = mail("node@example.net", "node.sendmail@example.org")
    settings = {"sendmail": True, "newline": "unix", "path": str(SENDMAIL)}
    sent(drive(node(), "nodemailer.js", NOWHERE, message, options=settings, env=submit(way)))
    arrived(sink, "node.sendmail@example.org", "node@example.net")


def test_git_by_the_sendmail_program(way: Way, sink: Sink, tmp_path: Path) -> None:
    letter = Letter("dev@example.net", ("git.sendmail@example.org",))
    (tmp_path / ".gitconfig").write_text(f"[sendemail]\n    smtpServer = {SENDMAIL}\n    envelopeSender = auto\n")
    done = git_send_email(way, letter, tmp_path, configured=True, env=submit(way))
    assert done.code == 0, done.said
    arrived(sink, "git.sendmail@example.org", "dev@example.net")


@pytest.mark.parametrize("name", ["containers", "password"])
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

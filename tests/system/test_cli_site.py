"""Sites, the first configuration and imports, by the verbs themselves; the running relay takes each change up."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from relay_process import Relay

PASSWORD = "BMXhUYlu5Z3gSXVQORxlVa7XPaz91aGWdfHxvkOZdWZ2"  # of SES's documentation, for no account
KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
KEY_ID = "AKIAABCDEFGHIJKLMNOP"
ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from sesrelay.cli import main
replace, done = Path.replace, []
def killed(self, target):
    if done:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(target)
    return replace(self, target)
Path.replace = killed
main(sys.argv[1:])
"""


def sesrelay(*args: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sesrelay", *map(str, args)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def ways(config: Path, sender: str) -> list[str]:
    done = sesrelay("route", sender, "--json", "--config", config)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout)["transports"])


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    """A relay that does not run yet, with its configuration."""
    return Relay(tmp_path, "expect: [{sender: someone@kept.example, transport: direct}]")


@pytest.fixture
def config(relay: Relay) -> Path:
    return relay.config


def refused(relay: Relay, sender: str) -> bool:
    with smtplib.SMTP(*relay.smtp, timeout=30) as smtp:
        smtp.ehlo("client.example.net")
        code, text = smtp.mail(sender)
        assert code in (250, 550), (code, text)
        return code == 550


def smtp_site(config: Path, name: str, *more: str, stdin: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    login = ("--aws-access-key-id", KEY_ID, "--aws-secret-key-file", "-")
    return sesrelay("site", "add", name, *login, *more, "--config", config, stdin=stdin)


def test_a_site_comes_and_goes_while_the_relay_runs(relay: Relay, config: Path) -> None:
    with relay:
        done = smtp_site(config, "shop", "--domain", "shop.example", "--local-user", "nobody")
        assert done.returncode == 0, done.stderr
        assert "the running relay now uses this configuration" in done.stdout
        file, secret = config.parent / "sites.d/shop.yaml", config.parent / "sites.d/shop.secret"
        assert {stat.S_IMODE(one.stat().st_mode) for one in (file, secret)} == {0o640}
        assert PASSWORD not in file.read_text()
        assert ways(config, "a@shop.example") == ["shop"]
        assert refused(relay, "a@shop.example"), "another local user may not send for it"
        listed = json.loads(sesrelay("site", "list", "--json", "--config", config).stdout)
        assert listed == [
            {
                "name": "shop",
                "file": str(file),
                "domains": ["shop.example"],
                "transports": [{"name": "shop", "type": "smtp"}],
                "local_users": ["nobody"],
                "ok": True,
            }
        ]
        gone = sesrelay("site", "remove", "shop", "--config", config)
        assert gone.returncode == 0, gone.stderr
        assert not refused(relay, "a@shop.example")
        assert list((config.parent / "sites.d").iterdir()) == []


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--domain", "kept.example", "--region", "eu-west-1"), 78, "not direct as expected"),
        (("--domain", "there.example", "--direct"), 78, "is defined twice"),
        (("--domain", "a.example", "--transport", "nowher"), 78, "there is no transport 'nowher'"),
        (("--domain", "a.example"), 64, "choose one way to send"),
        (("--domain", "a.example", "--direct", "--region", "eu-west-1"), 64, "choose one way to send"),
        (("--domain", "a..example", "--direct"), 64, "--domain"),
        (("--domain", "a.example", "--access-key-id", KEY_ID), 64, "--region is missing"),
        (("--domain", "a.example", "--region", "eu-west-1", "--access-key-id", KEY_ID), 64, "--secret-access-key-file is missing"),
        (("--domain", "a.example", "--region", "eu-west-1", "--access-key-id", KEY_ID, "--secret-access-key-file", "-"), 64,
         "looks like an SMTP password"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_changes_nothing(config: Path, args: tuple[str, ...], code: int, said: str) -> None:
    assert sesrelay("site", "add", "there", "--domain", "there.example", "--direct", "--config", config).returncode == 0
    before = sorted((config.parent / "sites.d").iterdir())
    done = sesrelay("site", "add", "new", *args, "--config", config, stdin=PASSWORD)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert sorted((config.parent / "sites.d").iterdir()) == before


def test_under_a_strict_umask_the_folder_of_the_first_site_is_as_open_as_the_files_in_it(config: Path) -> None:
    former = os.umask(0o077)
    try:
        done = sesrelay("site", "add", "new", "--domain", "a.example", "--direct", "--config", config)
    finally:
        os.umask(former)
    assert (done.returncode, stat.S_IMODE((config.parent / "sites.d").stat().st_mode)) == (0, 0o750), done.stderr


def test_the_first_site_that_is_refused_leaves_no_folder(config: Path) -> None:
    done = sesrelay("site", "add", "new", "--domain", "a.example", "--transport", "nowher", "--config", config)
    assert (done.returncode, (config.parent / "sites.d").exists()) == (78, False), done.stderr


def test_a_secret_of_the_other_kind_is_told_of_and_never_shown(config: Path) -> None:
    done = smtp_site(config, "shop", "--domain", "shop.example", stdin=KEY)
    assert done.returncode == 64
    assert "smtp-password" in done.stderr
    assert KEY not in done.stderr + done.stdout


def test_replacing_takes_the_place_and_the_old_secret_with_it(config: Path) -> None:
    assert smtp_site(config, "shop", "--domain", "shop.example").returncode == 0
    again = smtp_site(config, "shop", "--domain", "shop.example")
    assert (again.returncode, "--replace" in again.stderr) == (1, True)
    args = ("--domain", "shop.example", "--direct", "--replace", "--config", config)
    assert sesrelay("site", "add", "shop", *args).returncode == 0
    assert [one.name for one in (config.parent / "sites.d").iterdir()] == ["shop.yaml"]
    assert ways(config, "a@shop.example") == ["direct"]


def test_a_site_is_never_left_with_the_id_of_one_key_and_the_secret_of_another(config: Path) -> None:
    """Killed once it has renamed one file, the verb has said what the next one has to do."""
    assert smtp_site(config, "shop", "--domain", "shop.example").returncode == 0
    password = f"{PASSWORD[:-1]}3"
    login = ("--aws-access-key-id", "AKIAZYXWVUTSRQPONMLK", "--aws-secret-key-file", "-")
    args = ("site", "add", "shop", "--domain", "shop.example", "--replace", *login, "--config", config)
    killed = [sys.executable, "-c", KILLED, *map(str, args)]
    assert subprocess.run(killed, input=password, text=True, check=False).returncode == -signal.SIGKILL
    done = sesrelay("site", "add", "other", "--domain", "other.example", "--direct", "--config", config)
    assert done.returncode == 0, done.stderr
    folder = config.parent / "sites.d"
    assert f"{folder / 'shop.yaml'}: written now, to complete an earlier command that was interrupted" in done.stderr
    assert (folder / "shop.secret").read_text() == f"{password}\n"
    assert "AKIAZYXWVUTSRQPONMLK" in (folder / "shop.yaml").read_text()
    assert sorted(one.name for one in folder.iterdir()) == ["other.yaml", "shop.secret", "shop.yaml"]


def test_a_site_that_the_rest_needs_stays(config: Path) -> None:
    assert smtp_site(config, "shop", "--domain", "shop.example").returncode == 0
    config.write_text(f"{config.read_text()}default_route: {{transport: shop}}\n".replace("transport: direct", "transport: shop"))
    done = sesrelay("site", "remove", "shop", "--config", config)
    assert (done.returncode, "there is no transport 'shop'" in done.stderr) == (78, True), done.stderr
    assert (config.parent / "sites.d/shop.yaml").exists()


def test_a_broken_site_can_be_listed_and_removed(config: Path) -> None:
    folder = config.parent / "sites.d"
    folder.mkdir()
    (folder / "bad.yaml").write_text("routes: [{sender: bad.example, transprot: x}]\nroutez: []\n")
    assert sesrelay("check", "--config", config).returncode == 78
    assert "bad.example" in sesrelay("site", "list", "--config", config).stdout
    assert sesrelay("site", "remove", "bad", "--config", config).returncode == 0
    assert sesrelay("check", "--config", config).returncode == 0


def test_init_writes_one_file_that_check_takes(tmp_path: Path) -> None:
    config, secret = tmp_path / "etc/config.yaml", tmp_path / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o640)
    args = ("--hostname", "mail.example.com", "--region", "eu-west-1", "--smtp-username", KEY_ID, "--smtp-password-file", secret)
    done = sesrelay("init", *args, "--domain", "example.com", "--root", "ops@example.com", "--config", config)
    assert done.returncode == 0, done.stderr
    assert list(config.parent.iterdir()) == [config]
    assert stat.S_IMODE(config.stat().st_mode) == 0o640
    assert sesrelay("check", "--config", config).returncode == 0
    assert (ways(config, "a@example.com"), ways(config, "a@example.org")) == (["ses-main"], ["direct"])
    assert sesrelay("init", "--yes", "--config", config).returncode == 1, "what is there is not overwritten"
    secret.chmod(0o644)
    refused = sesrelay("init", *args, "--config", config, "--force")
    assert (refused.returncode, "chmod o-rwx" in refused.stderr) == (78, True)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--domain", "example.com"), "--domain needs credentials for SES"),
        (("--credentials", "none", "--domain", "example.com"), "--domain needs credentials for SES"),
        (("--credentials", "none", "--region", "eu-west-1"), "--region can only be used with"),
        (("--credentials", "machine", "--smtp-username", KEY_ID), "--smtp-username can only be used with --credentials smtp"),
    ],
)
def test_init_refuses_what_would_have_no_effect(tmp_path: Path, args: tuple[str, ...], said: str) -> None:
    config = tmp_path / "config.yaml"
    done = sesrelay("init", "--yes", *args, "--config", config)
    assert (done.returncode, config.exists(), said in done.stderr) == (64, False, True), done.stderr


def test_init_says_where_nothing_goes_by_ses(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    done = sesrelay("init", "--yes", "--region", "eu-west-1", "--config", config)
    assert (done.returncode, "no mail goes through SES yet" in done.stderr) == (0, True)
    assert f"sesrelay check --config {config}" in done.stdout


def test_ubos_folders_become_sites(config: Path) -> None:
    ubos = config.parent / "amazonses"
    for folder, line in (
        ("sender_dependent_relayhost_map.d", "/.*\\@shop\\.example/ [email-smtp.eu-west-1.amazonaws.com]:587\n"),
        ("smtp_sasl_password_map.d", f"/.*\\@shop\\.example/ {KEY_ID}:{PASSWORD}\n"),
    ):
        (ubos / folder).mkdir(parents=True)
        (ubos / folder / "s01234").write_text(line)
    look = sesrelay("import", "ubos", "--folder", ubos, "--config", config)
    assert (look.returncode, (config.parent / "sites.d").exists()) == (0, False), "off a terminal nothing is written unasked"
    assert "shop.example.evil.example matched too" in look.stdout
    done = sesrelay("import", "ubos", "--folder", ubos, "--yes", "--config", config)
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout
    assert ways(config, "a@shop.example") == ["s01234"]
    assert ways(config, "a@shop.example.evil.example") == ["direct"]
    again = sesrelay("import", "ubos", "--folder", ubos, "--yes", "--json", "--config", config)
    assert (again.returncode, again.stdout) == (1, ""), "nothing is written, and nobody is told that it is"
    assert "exists already; nothing was changed" in again.stderr


def test_postfix_tables_become_sites_and_the_rest_is_told(config: Path) -> None:
    folder = config.parent / "postfix"
    folder.mkdir()
    (folder / "main.cf").write_text(
        f"config_directory = {folder}\nsmtp_sender_dependent_authentication = yes\nrelayhost = [isp.example]\n"
        "sender_dependent_relayhost_maps = hash:$config_directory/relays,\n   pcre:${config_directory}/more ldap:elsewhere\n"
        "smtp_sasl_password_maps = hash:$config_directory/passwords\n"
    )
    (folder / "relays").write_text(
        "alice@a.example   [one.example]:587\n@b.example two.example\n# no: @x.example y\n@d.example DUNNO\n"
        "<> [three.example]\ne.example [two.example]\n@.f.example [two.example]\n@*.g.example [two.example]\n"
    )
    (folder / "more").write_text("/@(.*\\.)?c\\.example$/ [three.example]:465\n/x.*y@/ [four.example]\n")
    (folder / "passwords").write_text("alice@a.example alice:one\ntwo.example two:tw:o\n[three.example]:465 three:3\n")
    done = sesrelay("import", "postfix", "--main-cf", folder / "main.cf", "--yes", "--json", "--config", config)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {site["name"]: site["domains"] for site in found["sites"]} == {
        "alice.a.example": ["alice@a.example"],
        "b.example": ["b.example"],
        "c.example": ["c.example", "*.c.example"],
    }
    notes = "\n".join(found["notes"])
    odd = (
        "relays:5: mail with the null sender goes through [three.example]",
        "relays:6: Postfix",
        "relays:7: @.f.e",
        "relays:8: a table",
    )
    for said in ("ldap:elsewhere", "more:2", "MX hosts of two.example", "relayhost = [isp.example]", *odd):
        assert said in notes
    assert (config.parent / "sites.d/b.example.secret").read_text() == "tw:o\n"
    assert "tls: implicit" in (config.parent / "sites.d/c.example.yaml").read_text()
    assert [ways(config, f"x@{domain}") for domain in ("a.example", "c.example", "w.c.example", "d.example")] == [
        ["direct"], ["c.example"], ["c.example"], ["direct"],
    ]  # fmt: skip


def test_postfix_tables_as_people_write_them(config: Path) -> None:
    folder = config.parent / "postfix"
    folder.mkdir()
    (folder / "main.cf").write_text(
        "smtp_sender_dependent_authentication = yes\n"
        "sender_dependent_relayhost_maps = proxy:$default_database_type:$config_directory/relays regexp:$config_directory/more\n"
        f"smtp_sasl_password_maps = {folder}/passwords, regexp:$config_directory/secrets,\n"
        "  inline:{ {x@x.example = x:inlined} }, static:all:forall\n"
    )
    (folder / "relays").write_text(
        "@A.example [one.example]:587\n@a.example [two.example]:587\n@corp.example [corp.example]:587\n"
        "bob@corp.example [corp.example]:587\njoe@corp.example DUNNO\na@b.example [b.example]:587\n@a.b.example [c.example]:587\n"
        "@bücher.example [d.example]\n@xn--bcher-kva.example [d.example]\n"
    )
    (folder / "more").write_text(
        "/@m\\.example$/ [m.example]:587\nif /x/\n/@n\\.example$/ [n.example]:587\nendif\n/@o\\.example$/ [o.example]\n"
    )
    (folder / "passwords").write_text(
        "@a.example a:one\nbob@corp.example bob:two\nalice@corp.example alice:three\njoe@corp.example joe:four\n"
        "[corp.example]:587 corp:other\ncorp.example corp:five\n"
    )
    (folder / "secrets").write_text("/@m\\.example$/ m:pa$$word\n")
    done = sesrelay("import", "postfix", "--main-cf", folder / "main.cf", "--yes", "--json", "--config", config)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "inlined" not in done.stdout, "what is in a table is a secret"
    assert {site["name"]: site["domains"] for site in found["sites"]} == {
        "a.example": ["A.example"],
        "corp.example": ["corp.example"],
        "bob.corp.example": ["bob@corp.example"],
        "alice.corp.example": ["alice@corp.example"],
        "a.b.example": ["a@b.example"],
        "a.b.example-2": ["a.b.example"],
        "xn--bcher-kva.example": ["bücher.example"],
        "m.example": ["m.example"],
        "o.example": ["o.example"],
    }
    secrets = {file.stem: file.read_text().strip() for file in (config.parent / "sites.d").glob("*.secret")}
    wanted = {
        "a.example": "one",
        "bob.corp.example": "two",
        "alice.corp.example": "three",
        "corp.example": "five",
        "m.example": "pa$word",
    }
    assert secrets == {**dict.fromkeys(("a.b.example", "a.b.example-2", "xn--bcher-kva.example", "o.example"), "forall"), **wanted}
    notes = "\n".join(found["notes"])
    for said in (
        "relays:2: @a.example is already listed further up",
        "relays:5: joe@corp.example has no relay",
        "more:2: a conditional block",
        "inline:…: tables",
    ):
        assert said in notes


@pytest.mark.parametrize(
    ("settings", "tls"),
    [
        ("", None),
        ("smtp_tls_security_level = may", None),
        ("smtp_tls_security_level = encrypt", "required"),
        ("smtp_tls_security_level = secure", "required"),
        ("smtp_enforce_tls = yes", "required"),
        ("smtp_tls_wrappermode = yes\nsmtp_tls_security_level = encrypt", "implicit"),
    ],
)
def test_what_postfix_sent_under_tls_alone_does_not_leave_in_clear_text(config: Path, settings: str, tls: str | None) -> None:
    folder = config.parent / "postfix"
    folder.mkdir()
    (folder / "relays").write_text("@a.example [one.example]:2525\n")
    (folder / "main.cf").write_text(f"sender_dependent_relayhost_maps = hash:{folder}/relays\n{settings}\n")
    done = sesrelay("import", "postfix", "--main-cf", folder / "main.cf", "--yes", "--config", config)
    assert done.returncode == 0, done.stderr
    site = yaml.safe_load((config.parent / "sites.d/a.example.yaml").read_text())
    assert site["transports"]["a.example"].get("tls") == tls


@pytest.fixture
def ubos_calls(config: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment in which `sesrelay` is this one, with `config` as its own."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "sesrelay").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sesrelay "$@" --config "{config}"\n')
    (bin_ / "sesrelay").chmod(0o755)
    yield {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}"}


def test_ubos_deploys_and_undeploys_a_site(config: Path, tmp_path: Path, ubos_calls: dict[str, str]) -> None:
    variables = tmp_path / "variables.json"
    points = {
        "aws_access_key_id": f" {KEY_ID}\n",
        "aws_secret_key": PASSWORD,
        "ses_mail_server": "email-smtp.eu-west-1.amazonaws.com",
    }
    variables.write_text(
        json.dumps(
            {
                "site": {"siteid": "s0123456789", "hostname": "shop.example"},
                "installable": {"customizationpoints": {name: {"value": value} for name, value in points.items()}},
            }
        )
    )
    script = str(ROOT / "packaging/ubos/bin/manage-site")
    for _ in range(2):  # UBOS deploys again at each change of the site
        subprocess.run([sys.executable, script, "deploy", str(variables)], env=ubos_calls, check=True, timeout=60)
    assert ways(config, "a@shop.example") == ["s0123456789"]
    subprocess.run([sys.executable, script, "undeploy", str(variables)], env=ubos_calls, check=True, timeout=60)
    assert ways(config, "a@shop.example") == ["direct"]
    subprocess.run([sys.executable, script, "install", str(variables)], env=ubos_calls, check=True, timeout=60)


def test_the_manifest_has_the_originals_customization_points() -> None:
    points = json.loads((ROOT / "packaging/ubos/ubos-manifest.json").read_text())["customizationpoints"]
    assert {name: point["regex"] for name, point in points.items()} == {
        "aws_access_key_id": "^[A-Z0-9]{20}$",
        "aws_secret_key": r"^[A-Za-z0-9/\+]{40,}$",
        "ses_mail_server": r"^[-a-z0-9]+(\.[-a-z0-9]+)*$",
    }
    assert points["ses_mail_server"]["default"]["value"] == "email-smtp.us-east-1.amazonaws.com"

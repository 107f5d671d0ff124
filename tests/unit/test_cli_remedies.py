"""A command that a verb tells somebody to type works as it is printed, also where the verb was given a configuration."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from aws_world import sesrelay
from sesrelay.cli import VERBS, cli
from sesrelay.cli.options import DEFAULT_CONFIG
from sesrelay.cli.remedies import CONFIGURED, with_config
from sesrelay.delivery.nowhere import REMEDY
from sesrelay.policy.ses_meaning import UNVERIFIED
from sesrelay.spool.opening import _RESTORE

HERE = Path("/srv/my mail/relay.yaml")
OHARA = shlex.quote("o'hara@x.example")
NAMED = "--config '/srv/my mail/relay.yaml'"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sesrelay queue list", f"sesrelay queue list {NAMED}"),
        (
            "sesrelay queue list --state held, then release or delete",
            f"sesrelay queue list --state held {NAMED}, then release or delete",
        ),
        ("systemctl start sesrelay (or: sesrelay run)", f"systemctl start sesrelay (or: sesrelay run {NAMED})"),
        (
            "are held: release them with `sesrelay queue release` and the same arguments",
            f"are held: release them with `sesrelay queue release {NAMED}` and the same arguments",
        ),
        (
            "to end it: sesrelay queue release --sender 'a,b@x.example' --future",
            f"to end it: sesrelay queue release --sender 'a,b@x.example' --future {NAMED}",
        ),
        (
            f"until: sesrelay queue release --sender {OHARA} --future",
            f"until: sesrelay queue release --sender {OHARA} --future {NAMED}",
        ),
        ("to see the status: sesrelay account", f"to see the status: sesrelay account {NAMED}"),
        ("`sesrelay account request-production` asks", f"`sesrelay account request-production {NAMED}` asks"),
        ("ask: sesrelay domain dns a.example. Then wait", f"ask: sesrelay domain dns a.example {NAMED}. Then wait"),
        ("sesrelay check; sesrelay doctor", f"sesrelay check {NAMED}; sesrelay doctor {NAMED}"),
        (REMEDY, f"{REMEDY} {NAMED}"),
        (_RESTORE, _RESTORE.replace("FOLDER`", f"FOLDER {NAMED}`")),
        (UNVERIFIED.remedy, UNVERIFIED.remedy.replace("{region}` (or", f"{{region}} {NAMED}` (or")),
        # What takes no configuration, is no command, or names one.
        *((same, same) for same in (
            "sesrelay smtp-password --region REGION makes the password", "systemctl reload sesrelay", "sesrelay: it went away",
            "sesrelay-sendmail -bp", "sesrelay queue --help", f"sesrelay run {NAMED}", "sesrelay run-time", "a sesrelay demo",
        )),
    ],
)  # fmt: skip
def test_a_command_gets_the_configuration_at_its_end(text: str, told: str) -> None:
    assert with_config(text, HERE) == told
    assert with_config(text, DEFAULT_CONFIG) == text


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from _commands(found, f"{path} {name}")


def test_the_verbs_that_take_a_configuration_are_known() -> None:
    taking = {
        path
        for verb in VERBS
        for path, command in _commands(cli.get_command(click.Context(cli), verb), verb)  # type: ignore[attr-defined]
        if any(param.name == "config" for param in command.params)
    }
    known = {f"{verb} {below}".strip() for verb, those in CONFIGURED.items() for below in those.split("|")}
    assert taking == known


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "my mail"
    folder.mkdir()
    config = folder / "relay.yaml"
    config.write_text(
        f"state_dir: {folder}/state\ncontrol: {folder}/control.sock\nlisteners: [{{listen: '127.0.0.1:0'}}]\n"
        "transports: {park: {type: hold}}\ndefault_route: {reject: true}\n"
    )
    config.chmod(0o600)
    return config


def test_verbs_print_them_so(config: Path) -> None:
    named = f"--config {shlex.quote(str(config))}"
    said = sesrelay("send", "--from", "a@example.com", "--to", "b@example.org", "--config", config)
    start = f"start it with: systemctl start sesrelay (or: sesrelay run {named})"
    assert said.err == f"sesrelay: no daemon answers at {config.parent}/control.sock; {start}\n"
    said = sesrelay("queue", "hold", "--sender", "a@example.com", "--future", "--config", config)
    assert said.err.endswith(f"start the daemon first: sesrelay run {named}\n")
    remedies = {one["check"]: one["remedy"] for one in sesrelay("doctor", "--json", "--config", config).json["checks"]}
    assert remedies["relay"] == f"systemctl start sesrelay (or: sesrelay run {named})"
    config.write_text("hotsname: x\n")
    assert f"(do: sesrelay check {named})" in sesrelay("doctor", "--config", config).out
    said = sesrelay("init", "--yes", "--hostname", "a.example", "--config", config)
    assert f"what is wrong with it: sesrelay check {named})" in said.err
    config.write_text("{}\n")
    said = sesrelay("init", "--yes", "--hostname", "a.example", "--config", config)
    assert f"to add a site: sesrelay site add {named})" in said.err
    said = sesrelay("init", "--yes", "--hostname", "a.example", "--config", config, "--force")
    assert f"next: sesrelay check {named}, then systemctl reload-or-restart sesrelay (or: sesrelay run {named}), then" in said.out
    assert f"--to YOU {named}" in said.out

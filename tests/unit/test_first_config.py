"""The first configuration of a machine can be loaded, and says where the mail for root goes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from sesrelay.cli.init import command
from sesrelay.config.loading import load
from sesrelay.mail.envelope import Recipient
from sesrelay.policy.admission import complete_recipient
from sesrelay.setup.sites.first_config import Answers, compose


@pytest.mark.parametrize("root", ["ops@example.net", "Ops@example.com", "root@example.com"])
def test_mail_for_root_goes_where_it_was_said_to(root: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(compose(Answers("example.com", root=root)), encoding="utf-8")
    loaded = load(file)
    assert complete_recipient(Recipient("root"), loaded.local) == Recipient(root, orcpt="rfc822;root@example.com")


@pytest.mark.parametrize(
    ("pattern", "somebody", "sends"),
    [
        ("user@example.com", "user@example.com", "user@example.com"),
        ("example.com", "postmaster@example.com", "test@example.com"),
        ("*.example.com", "postmaster@www.example.com", "test@www.example.com"),
    ],
)
def test_each_kind_of_pattern_has_its_expectation_and_its_hint(pattern: str, somebody: str, sends: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    said = ["--credentials", "machine", "--region", "us-east-1", "--hostname", "relay.example.net", "--domain", pattern, "--yes"]
    done = CliRunner().invoke(command, [*said, "--config", str(file)])
    assert done.exit_code == 0, done.output
    assert f"sesrelay send --from {sends} --to YOU" in done.output
    (held,) = load(file).config.expect
    assert held.sender == somebody


def test_what_is_advised_for_a_password_in_place_of_a_key_is_no_other_verbs_option(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("BMXhUYlu5Z3gSXVQORxlVa7XPaz91aGWdfHxvkOZdWZ2\n")
    said = ["--access-key-id", "AKIAIOSFODNN7EXAMPLE", "--secret-access-key-file", str(tmp_path / "secret"), "--yes"]
    done = CliRunner().invoke(command, [*said, "--config", str(tmp_path / "config.yaml")])
    assert (done.exit_code, "looks like an SMTP password" in done.output) == (2, True)
    own = {option for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"--[a-z][a-z-]*", done.output)) <= own | {"--help"}


@pytest.mark.parametrize("secret", ["wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "BMXhUYlu5Z3gSXVQORxlVa7XPaz91aGWdfHxvkOZdWZ2"])
def test_a_secret_in_place_of_its_file_is_told_of_and_not_repeated(secret: str, tmp_path: Path) -> None:
    said = ["--access-key-id", "AKIAIOSFODNN7EXAMPLE", "--secret-access-key-file", secret, "--yes"]
    done = CliRunner().invoke(command, [*said, "--config", str(tmp_path / "config.yaml")])
    assert done.exit_code == 2
    assert "the secret itself" in done.output
    assert secret not in done.output

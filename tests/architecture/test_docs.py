"""What a user can call or watch is documented: every verb in the README, every metric in the page on monitoring.

The keys of the configuration are held to their reference in unit/test_config_reference.py.
"""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import click
import pytest

from fakes import FakeClock
from sesrelay.cli import VERBS
from sesrelay.observe.metrics import MetricsSink

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_in_the_readme(verb: str) -> None:
    command: click.Command = importlib.import_module(VERBS[verb][0]).command
    assert re.search(rf"\bsesrelay {verb}\b", README), f"README.md does not show `sesrelay {verb}`"
    if isinstance(command, click.Group):
        for name in command.commands:
            assert re.search(rf"\b{verb}\b[^\n]*\b{name}\b", README), f"README.md does not name `sesrelay {verb} {name}`"


def metrics() -> list[str]:
    """Return every name as Prometheus shows it, build_info and counters with their ending."""
    families = MetricsSink(FakeClock()).registry.collect()
    return sorted({f"{family.name}_total" if family.type == "counter" else family.name for family in families})


def test_there_are_metrics() -> None:
    assert "sesrelay_messages_accepted_total" in metrics()


@pytest.mark.parametrize("name", metrics())
def test_a_metric_is_in_the_page_on_monitoring(name: str) -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert f"`{name}" in page, f"docs/monitoring.md does not name {name}"


def test_the_page_on_monitoring_invents_none() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(sesrelay_\w+)", page, re.MULTILINE))
    assert named - set(metrics()) == set()


def by_hand() -> str:
    """Return the commands that make a service of a checkout."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if "systemd-sysusers" in block)
    return str(block)


def test_by_hand_everything_gets_its_place() -> None:
    commands, project = by_hand(), tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for script in project["project"]["scripts"]:
        assert re.search(rf"\bln -s .*/opt/sesrelay/bin/{script} .*/usr/bin/", commands), f"no link for {script}"
        for package in ("packaging/deb/sesrelay.yaml", "packaging/arch/PKGBUILD", "packaging/container/Containerfile"):
            assert f"/usr/bin/{script}" in (ROOT / package).read_text(encoding="utf-8"), f"{package} has no {script}"
    for named in re.findall(r"(?<=\s)(?:packaging|systemd)/\S+", commands):
        assert list(ROOT.glob(named)), f"there is no {named}"
    for folder in re.findall(r"/etc/(?:sysusers|tmpfiles)\.d", commands):  # not there on each machine
        assert f"install -D -m 0644 -t {folder} " in commands


def test_the_readme_opens_with_the_two_commands() -> None:
    """A newcomer types these first, and they are what a machine with only Python, make and git can do."""
    head = README[:2500]
    assert head.find("make demo") != -1
    assert head.find("make demo") < head.find("make test")


def shown() -> list[tuple[str, str]]:
    """Return each command of ours that a page shows, with the page's name."""
    found = []
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        fenced = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        blocks = [block for language, block in fenced if language not in ("yaml", "yml")]
        lines = [line.partition(" #")[0] for block in blocks for line in block.splitlines()]
        inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
        commands = [re.sub(r"^(?:\$ )?(?:sudo )?", "", " ".join(one.split())) for one in (*lines, *inline)]
        found += [(page.name, one) for one in commands if re.match(r"sesrelay [a-z]", one) and "…" not in one]
    return found


@pytest.mark.parametrize(("page", "command"), sorted(set(shown())))
def test_a_command_that_a_page_shows_exists(page: str, command: str) -> None:
    words = [word for word in command.split()[1:] if word not in ("&&", "\\")]
    found: click.Command = importlib.import_module(VERBS[words[0]][0]).command
    del words[0]
    while isinstance(found, click.Group) and words and words[0] in found.commands:
        found = found.commands[words.pop(0)]
    known = {option for param in found.params for option in param.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known

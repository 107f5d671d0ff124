"""What is unpacked of other projects' programs, what tests find of it, and what they say of one that is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fetch_peers
import peers

TESTS = Path(__file__).parents[1]
POSTFIX = {"posttls-finger", "smtp-sink"}  # unpacked with the one that the list names


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of unpacked programs, on a machine that has none of its own."""
    monkeypatch.setattr(peers.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(peers, "ROOT", tmp_path / "root")
    monkeypatch.setattr(peers, "APART", tmp_path / "apart")
    programs = tmp_path / "apart/usr/bin"
    programs.mkdir(parents=True)
    return programs


def put(folder: Path, name: str) -> Path:
    program = folder / name
    program.touch(0o755)
    return program


def test_what_is_unpacked_is_found(unpacked: Path) -> None:
    program = put(unpacked, "swaks")
    found = peers.find("swaks")
    assert found is not None
    assert found.path == program


@pytest.mark.parametrize("name", sorted(peers.OWN))
def test_what_runs_only_where_it_is_installed_is_not_taken_from_what_was_unpacked(unpacked: Path, name: str) -> None:
    put(unpacked, name)
    assert peers.find(name) is None


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("chromium", "apt install chromium"), ("systemd-sysusers", "apt install systemd"), ("swaks", "`make test` unpacks it")],
)
def test_a_skip_names_what_helps(unpacked: Path, monkeypatch: pytest.MonkeyPatch, name: str, remedy: str) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=f"{name} is not here: {remedy}"):
        peers.require(name)


def test_a_plain_run_shows_why_tests_skipped(tmp_path: Path) -> None:
    made = tmp_path / "test_it.py"
    made.write_text("import pytest\n\ndef test_it():\n    pytest.skip('swaks is not here')\n")
    run = [sys.executable, "-m", "pytest", "-c", TESTS.parent / "pyproject.toml", "--rootdir", tmp_path, made]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "swaks is not here" in done.stdout, done.stdout + done.stderr


def test_whatever_is_wanted_is_unpacked_or_the_machines_own() -> None:
    wanted = {
        name for path in TESTS.rglob("*.py") for name in re.findall(r"\brequire\(\"([\w-]+)\"\)", path.read_text(encoding="utf-8"))
    }
    assert len(wanted) > 15
    assert wanted - set(peers.OWN) - set(fetch_peers.PACKAGES.values()) - POSTFIX == set()


@pytest.mark.parametrize(("known", "asked"), [(["promtool", "prometheus"], "promtool"), (["prometheus"], "prometheus")])
def test_promtool_is_had_from_the_package_that_has_it(known: list[str], asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 13's prometheus is without it."""

    def run(*command: str) -> str:
        if command[-1] not in known:
            raise RuntimeError("apt-cache show: E: No packages found")
        return ""

    monkeypatch.setattr(fetch_peers, "run", run)
    (package,) = [package for package, program in fetch_peers.PACKAGES.items() if program == "promtool"]
    assert fetch_peers.in_this_distribution(package) == asked


def test_unpacked_php_finds_what_it_names_by_its_installed_place(tmp_path: Path) -> None:
    """As Debian 13's php-email-validator does: where nothing is installed, that ends each program that loads it."""
    autoload = tmp_path / "usr/share/php/Validator/autoload.php"
    autoload.parent.mkdir(parents=True)
    autoload.write_text(
        "<?php\nrequire_once '/usr/share/php/Lexer/autoload.php';\nrequire_once __DIR__ . '/../Log/autoload.php';\n"
    )
    other = autoload.with_name("Other.php")
    other.write_bytes(b"<?php // \xe9\n")
    for _ in range(2):
        fetch_peers.relocate(tmp_path)
        assert autoload.read_text() == "<?php\nrequire_once 'Lexer/autoload.php';\nrequire_once __DIR__ . '/../Log/autoload.php';\n"
        assert other.read_bytes() == b"<?php // \xe9\n"

"""The import contracts of .importlinter hold, and each of them finds a breach that is planted in a copy."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE = ("mail", "policy", "seams")

# contract -> (module of a copy, the line that breaks it there)
BREACHES = {
    "rooms": [
        ("mail/address.py", "import sesrelay.policy.retry"),
        ("spool/__init__.py", "import sesrelay.delivery"),
        ("policy/retry.py", "import sesrelay.seams"),
        ("web/__init__.py", "import sesrelay.app"),
        ("setup/__init__.py", "import sesrelay.app"),
        ("strange_room/__init__.py", ""),
    ],
    "transports": [("transport/hold.py", "import sesrelay.transport.discard")],
    "pure": [("policy/retry.py", "import time"), ("mail/address.py", "import asyncio"), ("seams/spool.py", "import yaml")],
    "sendmail": [
        ("sendmail/exits.py", "import re"),
        ("sendmail/client.py", "import socket"),
        ("sendmail/header.py", "import sesrelay.mail.headers"),
    ],
    "vendor-boto3": [("transport/ses/__init__.py", "import boto3")],
    "vendor-botocore": [("delivery/__init__.py", "import botocore.auth")],
    "vendor-aiohttp": [("transport/smtp/transport.py", "import aiohttp")],
    "vendor-httptools": [("transport/smtp/transport.py", "import httptools")],
    "vendor-aiosmtplib": [("cli/__init__.py", "import aiosmtplib")],
    "vendor-dnspython": [("listener/__init__.py", "import dns.resolver")],
    "vendor-apsw": [("app/__init__.py", "import apsw")],
    "vendor-configuration": [("app/__init__.py", "import yaml"), ("cli/__init__.py", "import pydantic")],
    "vendor-observation": [("web/__init__.py", "import prometheus_client"), ("spool/__init__.py", "import structlog")],
    "vendor-cryptography": [("cli/__init__.py", "import cryptography"), ("app/__init__.py", "from cryptography import x509")],
    "vendor-jinja2": [("cli/__init__.py", "import jinja2")],
    "vendor-terminal": [("app/__init__.py", "import click"), ("web/__init__.py", "import rich")],
    "vendor-tests": [("transport/ses/__init__.py", "import moto"), ("listener/wire.py", "from aiosmtpd.smtp import SMTP")],
}


def contracts() -> list[str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return [name.removeprefix("importlinter:contract:") for name in parser.sections() if name.startswith("importlinter:contract:")]


def lint(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the linter on the copy in `folder`, and be sure that it is the copy that it reads."""
    command = [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"]
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1", "COLUMNS": "200"}
    options = ("--config", str(folder / ".importlinter"), "--no-cache", *options)
    return subprocess.run([*command, *options], cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.css", "*.html"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def test_the_tree_keeps_every_contract(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(contracts())} kept, 0 broken" in done.stdout


def test_every_contract_has_a_breach_to_find() -> None:
    assert sorted(BREACHES) == sorted(contracts())


@pytest.mark.parametrize("contract", BREACHES)
def test_a_planted_breach_is_found(copy: Path, contract: str) -> None:
    for module, line in BREACHES[contract]:
        target = copy / "src" / "sesrelay" / module
        before = target.read_text(encoding="utf-8") if target.exists() else None
        target.parent.mkdir(exist_ok=True)
        target.write_text(f"{before or ''}\n{line}\n", encoding="utf-8")
        done = lint(copy, "--contract", contract)
        assert done.returncode != 0, f"{line!r} in {module} was not found"
        assert "BROKEN" in done.stdout, done.stdout + done.stderr  # found, rather than fallen over
        if before is None:
            shutil.rmtree(target.parent)
        else:
            target.write_text(before, encoding="utf-8")


def test_the_core_imports_nothing_but_the_standard_library() -> None:
    """The contract names what is known to tempt; this names nothing and so forgets nothing."""
    known = sys.stdlib_module_names | {"sesrelay"}
    sources = [
        path
        for room in PURE
        for path in sorted((ROOT / "src/sesrelay").glob(f"{room}/**/*.py")) or [ROOT / f"src/sesrelay/{room}.py"]
    ]
    assert len(sources) > 10
    for source in sources:
        for found in re.finditer(r"^\s*(?:import|from)\s+(\w+)", source.read_text(encoding="utf-8"), re.MULTILINE):
            assert found[1] in known, f"{source.relative_to(ROOT)} imports {found[1]}"

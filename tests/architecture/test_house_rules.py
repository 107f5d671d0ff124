"""The rules of CONTRIBUTING.md that a program can check: sizes, names, clocks, silence."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "sesrelay"
SOURCES = sorted(PACKAGE.rglob("*.py"))

LONGEST = 400  # lines; a module is split by meaning before that
NAMELESS = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc"}

# The rooms that may ask what time it is, or draw lots: app hands both to the others, cli and sendmail stand outside the
# daemon, and testing imitates services that have clocks of their own.
KEEPERS_OF_TIME = {"app", "cli", "sendmail", "testing"}
CLOCKS = {
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "monotonic"),
    ("time", "monotonic_ns"),
    ("time", "perf_counter"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("date", "today"),
    ("uuid", "uuid1"),
    ("uuid", "uuid4"),
    ("os", "urandom"),
}
CHANCE = {"random", "secrets"}
POSSESSIVE_GROUP = re.compile(r"\)[*+?]\+")


def identify(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def clocks_read(tree: Iterator[ast.AST]) -> list[str]:
    """Return where a clock is read or a lot drawn. A monotonic deadline of the loop (`loop.time()`) is no clock of ours."""
    found = []
    for node in tree:
        if isinstance(node, ast.Import):
            found += [f"line {node.lineno}: import {name.name}" for name in node.names if name.name in CHANCE]
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module, name.name) for name in node.names}
            if node.level == 0 and (node.module in CHANCE or names & CLOCKS):
                found.append(f"line {node.lineno}: from {node.module} import …")
        elif isinstance(node, ast.Attribute):
            owner = (
                node.value.id
                if isinstance(node.value, ast.Name)
                else node.value.attr
                if isinstance(node.value, ast.Attribute)
                else ""
            )
            if (owner, node.attr) in CLOCKS:
                found.append(f"line {node.lineno}: {owner}.{node.attr}")
    return found


def swallowed(tree: Iterator[ast.AST]) -> list[int]:
    """Return the lines of handlers that catch everything and do nothing with it."""
    return [
        node.lineno
        for node in tree
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
        and all(
            isinstance(line, ast.Pass) or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
            for line in node.body
        )
    ]


def versions_without_else(tree: Iterator[ast.AST]) -> list[int]:
    """Return the lines that ask for Python's version, and have the rest of the function for the other answer."""
    return [node.lineno for node in tree if isinstance(node, ast.If) and "version_info" in ast.dump(node.test) and not node.orelse]


@pytest.mark.parametrize("source", SOURCES, ids=identify)
def test_a_module_keeps_the_house_rules(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST, "split it by meaning"
    assert not NAMELESS & {*source.relative_to(PACKAGE).with_suffix("").parts}, "name it for what it is"
    assert ast.get_docstring(ast.parse(text)) or source.name == "__main__.py", "say in one sentence what the module is"
    assert swallowed(nodes(source)) == []
    if room(source) not in KEEPERS_OF_TIME:
        assert clocks_read(nodes(source)) == [], "time and chance are arguments: take a seams.Clock"
    assert versions_without_else(nodes(source)) == [], "say else: mypy then leaves out what is for another Python than its own"
    assert not POSSESSIVE_GROUP.search(text), "Python before 3.11.5 goes on behind what did not match (gh-106052)"
    if room(source) not in {"cli", "testing"}:
        printed = [
            node.lineno
            for node in nodes(source)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        ]
        assert printed == [], "only cli speaks to a terminal"


@pytest.mark.parametrize(
    "line",
    [
        "import time\nx = time.time()",
        "from time import time",
        "import random\nrandom.random()",
        "from secrets import token_hex",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime, UTC\nf = datetime.now",
        "import uuid\nuuid.uuid4()",
        "import os\nos.urandom(8)",
    ],
)
def test_a_clock_read_is_seen(line: str) -> None:
    assert clocks_read(ast.walk(ast.parse(line)))


def test_a_possessive_group_is_seen() -> None:
    assert POSSESSIVE_GROUP.search(r"(?:a|b)*+") and not POSSESSIVE_GROUP.search(r"[ab]*+(?:c)+")


def test_a_version_without_else_is_seen() -> None:
    asked = "import sys\nif sys.version_info >= (3, 13):\n  x()\n"
    assert versions_without_else(ast.walk(ast.parse(asked + "y()"))) == [2]
    assert versions_without_else(ast.walk(ast.parse(asked + "else:\n  y()"))) == []


def test_a_swallowed_error_is_seen() -> None:
    assert swallowed(ast.walk(ast.parse("try:\n  x()\nexcept Exception:\n  pass"))) == [3]
    assert swallowed(ast.walk(ast.parse("try:\n  x()\nexcept:\n  ..."))) == [3]
    assert swallowed(ast.walk(ast.parse("try:\n  x()\nexcept Exception:\n  log()"))) == []


def test_nothing_committed_names_somebodys_machine() -> None:
    """A path of the machine where a line was written means nothing on the reader's."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    private = re.compile(rb"(?<![\w.*-])(?:/home/(?!USER\b)\w|/Users/\w|/root/\w|[A-Z]:\\Users\\)")
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if not path.is_file() or path == Path(__file__):
            continue
        found = private.search(path.read_bytes())
        assert not found, f"{name}: {found and path.read_bytes()[found.start() : found.start() + 60]!r}"

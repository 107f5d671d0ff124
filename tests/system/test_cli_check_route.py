"""The command as people call it: its frame, `check` and `route`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RELAY = [sys.executable, "-m", "sesrelay"]


def relay(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RELAY, *args], capture_output=True, text=True, timeout=30, cwd=cwd, check=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(
        "hostname: host.example\n"
        "transports: {s: {type: ses, region: us-east-1}}\n"
        "routes:\n"
        "  - {sender: example.com, transport: [s, direct], priority: high}\n"
        "  - {sender: '*.example.com', transport: direct}\n"
        "  - {sender: spam.example, reject: true}\n"
    )
    return file


def test_help_is_quick_because_it_imports_little() -> None:
    code = (
        "import sys\nfrom sesrelay.cli import main\ncode = main(['--help'])\n"
        "heavy = {'boto3', 'botocore', 'aiohttp', 'pydantic', 'yaml', 'rich', 'apsw', 'asyncio'} & set(sys.modules)\n"
        "assert code == 0 and not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    for verb in ("run", "demo", "check", "route", "queue", "trace", "send"):
        assert f"  {verb} " in done.stdout


def test_version() -> None:
    from sesrelay import __version__

    done = relay("--version")
    assert (done.returncode, done.stdout) == (0, f"sesrelay {__version__}\n")


@pytest.mark.parametrize(
    "args", [["chek"], ["check", "--nonsense"], ["route"], ["--nonsense"], ["route", "a", "b"], []], ids=" ".join
)
def test_a_wrong_command_line_exits_64(args: list[str]) -> None:
    done = relay(*args)
    assert done.returncode == 64
    assert "Usage: sesrelay" in done.stderr + done.stdout


def test_a_verb_that_is_nearly_right_is_suggested() -> None:
    assert "Did you mean check?" in relay("chek").stderr


def test_check_says_ok(config: Path) -> None:
    done = relay("check", "--config", str(config))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"ok: {config}: listens on 127.0.0.1:25")
    assert "2 transports, 3 routes" in done.stdout


def test_check_prints_each_problem_on_stdout_and_exits_78(config: Path) -> None:
    config.write_text("hostnam: x\nlog: {level: loud}\n")
    done = relay("check", "--config", config.name, cwd=config.parent)
    assert (done.returncode, done.stderr) == (78, "")
    assert done.stdout.splitlines() == [
        "config.yaml:1:1: hostnam: unknown key (did you mean hostname?)",
        "config.yaml:2:14: log.level: must be debug, info, warning or error, not 'loud'",
    ]


def test_other_verbs_print_problems_on_stderr(config: Path) -> None:
    config.write_text("hostnam: x\n")
    done = relay("route", "a@b.example", "--config", str(config))
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == f"{config}:1:1: hostnam: unknown key (did you mean hostname?)\n"


def test_a_missing_configuration_is_78(tmp_path: Path) -> None:
    assert relay("check", "--config", str(tmp_path / "none")).returncode == 78


def test_route_as_json(config: Path) -> None:
    done = relay("route", "Bob@EXAMPLE.com", "--to", "carol@example.org", "--json", "--config", str(config))
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "sender": "Bob@EXAMPLE.com",
        "recipient": "carol@example.org",
        "rule": "example.com",
        "source": f"{config}:4",
        "transports": ["s", "direct"],
        "priority": "high",
        "reject": False,
        "considered": [
            {
                "rule": "*.example.com",
                "source": f"{config}:5",
                "why": "*.example.com covers sub-domains only, not example.com itself",
            },
            {"rule": "spam.example", "source": f"{config}:6", "why": "example.com is not spam.example"},
            {"rule": "default_route", "source": None, "why": "example.com is more specific"},
        ],
    }


@pytest.mark.parametrize(
    ("args", "rule", "sender"),
    [
        (["a@notexample.com"], "default_route", "a@notexample.com"),
        (["a@example.com.evil.org"], "default_route", "a@example.com.evil.org"),
        (["a@deep.sub.example.com"], "*.example.com", "a@deep.sub.example.com"),
        (["<a@example.com>"], "example.com", "a@example.com"),
        (["root"], "default_route", "root@host.example"),
        (["root", "--header-from", "shop@example.com"], "example.com", "root@host.example"),
        (["<>"], "null_sender_route", ""),
        (["<>", "--header-from", "shop@example.com"], "example.com", ""),
        (["x@spam.example"], "spam.example", "x@spam.example"),
    ],
)
def test_route_follows_the_rules(args: list[str], rule: str, sender: str, config: Path) -> None:
    done = relay("route", *args, "--json", "--config", str(config))
    document = json.loads(done.stdout)
    assert (done.returncode, document["rule"], document["sender"]) == (0, rule, sender)
    assert document["reject"] is (rule == "spam.example")


@pytest.mark.parametrize(
    "args",
    [
        ["a b@example.com"],
        ["a@"],
        ["@example.com"],
        ["a@exa mple.com"],
        ["a@b.example", "--to", "<>"],
        ["a@b.example", "--header-from", "x@"],
    ],
    ids=" ".join,
)
def test_a_bad_address_is_64(args: list[str], config: Path) -> None:
    done = relay("route", *args, "--config", str(config))
    assert (done.returncode, done.stdout) == (64, "")
    assert "is not an address" in done.stderr


def test_route_explains_itself_to_people(config: Path) -> None:
    done = relay("route", "x@spam.example", "--config", str(config))
    assert done.stdout.splitlines()[:2] == [
        "x@spam.example: refused with 550 5.7.1",
        f"  by the rule spam.example at {config}:6, route spam.example",
    ]
    assert f"    example.com at {config}:4: spam.example is not example.com" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_source_of_the_null_senders_rule_is_its_own_line(config: Path) -> None:
    assert json.loads(relay("route", "<>", "--json", "--config", str(config)).stdout)["source"] is None, "it stands nowhere"
    config.write_text(config.read_text() + "default_route: {transport: direct}\nnull_sender_route: auto\n")
    assert json.loads(relay("route", "<>", "--json", "--config", str(config)).stdout)["source"] == f"{config}:8"


def test_of_many_routes_those_about_other_senders_are_counted(config: Path) -> None:
    more = "".join(f"  - {{sender: shop{n}.example, transport: s}}\n" for n in range(1, 1_501))
    config.write_text(config.read_text() + more)
    done = relay("route", "a@www.example.com", "--config", str(config))
    assert done.stdout.splitlines()[-4:] == [
        "  and not by these rules:",
        f"    example.com at {config}:4: www.example.com is a sub-domain; write *.example.com to match it",
        "    default_route at the built-in default: *.example.com is more specific",
        "    1,501 more, for other senders (--json lists them all)",
    ]
    found = json.loads(relay("route", "a@www.example.com", "--json", "--config", str(config)).stdout)
    assert len(found["considered"]) == 1_503
    assert set(found["considered"][0]) == {"rule", "source", "why"}


def test_a_reader_that_leaves_early_is_no_error(config: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*RELAY, "route", "a@example.com", "--config", str(config)],
            stdout=write,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(write)
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("user", "sender", "header_from", "refused"),
    [
        ("someone", "a@example.com", [], None),
        ("4242", "a@number.example", [], None),
        ("other", "a@example.com", [], "550 5.7.1 <a@example.com> is reserved for other users"),
        ("someone", "a@else.example", [], "550 5.7.1 <a@else.example> is not allowed for local user someone"),
        ("someone", "a@example.com", ["b@number.example"], "550 5.7.1 <b@number.example> is reserved for other users"),
        ("other", "a@else.example", ["b@else.example"], None),
    ],
)
def test_route_tells_who_may_send(config: Path, user: str, sender: str, header_from: list[str], refused: str | None) -> None:
    config.write_text(config.read_text() + "access: {local_users: {someone: example.com, '4242': number.example}}\n")
    more = [part for address in header_from for part in ("--header-from", address)]
    done = relay("route", sender, "--user", user, *more, "--json", "--config", str(config))
    assert done.returncode == 0
    found = json.loads(done.stdout)["refusal"]
    assert found == refused if refused is None else found.startswith(refused)
    assert (f"refused for {user}: " in relay("route", sender, "--user", user, *more, "--config", str(config)).stdout) is bool(
        refused
    )


def test_an_interrupt_is_quiet(tmp_path: Path) -> None:
    started = tmp_path / "started"
    code = (
        "import sys, time, pathlib, click\nfrom sesrelay import cli\n"
        "@click.command()\ndef command() -> None:\n"
        f"    pathlib.Path({str(started)!r}).touch()\n    time.sleep(30)\n"
        "sys.modules['slow'] = type(sys)('slow')\nsys.modules['slow'].command = command\n"
        "cli.VERBS['slow'] = ('slow', '')\nsys.exit(cli.main(['slow']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        while not started.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.strip()) == (130, b"")

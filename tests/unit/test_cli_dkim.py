"""`sesrelay dkim generate`: the key file, the record, and that the two belong together."""

from __future__ import annotations

import json
import os
from pathlib import Path

import dkim
import dns.rdata
import pytest

from sesrelay.cli import main
from sesrelay.config.dkim_keys import parse
from sesrelay.config.loading import load
from sesrelay.mail.dkim import DkimKey, signatures
from somebody import UNNAMED, as_root

MESSAGE = b"From: a@example.org\r\nSubject: hello\r\n\r\nHello.\r\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def run(config: Path, *args: str) -> int:
    return main(["dkim", "generate", *args, "--config", str(config)])


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_the_record_verifies_what_the_key_signs(config: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    old = os.umask(0o077)
    try:
        assert run(config, "Example.ORG", "--type", kind, "--selector", "S1", "--json") == 0
    finally:
        os.umask(old)
    said = json.loads(capsys.readouterr().out)
    file = Path(said["key_file"])
    assert file == config.parent / "s1.example.org.pem"
    assert file.stat().st_mode & 0o777 == 0o640
    (found,) = said["records"]
    assert (found["type"], found["name"]) == ("TXT", "s1._domainkey.example.org")
    key = parse(file.read_bytes())
    signed = signatures(MESSAGE, [DkimKey("example.org", "s1", key.algorithm, key.sign)], 1_700_000_000) + MESSAGE
    assert dkim.verify(signed, dnsfunc=lambda name, timeout=5: found["value"].encode())


def test_in_words_a_line_for_the_configuration_that_is_taken(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "example.org") == 0
    said = capsys.readouterr().out
    assert "TXT   sesrelay._domainkey.example.org  v=DKIM1; k=rsa; p=" in said
    (line,) = [line for line in said.splitlines() if line.startswith("    dkim:")]
    config.write_text(f"transports:\n  direct:\n    type: direct\n{line}\n")
    assert "direct" in load(config, environ={}).config.transports
    assert "PRIVATE" not in said


def test_as_a_line_of_a_zone_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "example.org", "--format", "bind") == 0
    out, err = capsys.readouterr()
    name, ttl, cls, kind, rdata = out.rstrip("\n").split(" ", 4)
    assert (name, ttl, cls, kind) == ("sesrelay._domainkey.example.org.", "3600", "IN", "TXT")
    parsed = dns.rdata.from_text("IN", "TXT", rdata.removeprefix("( ").removesuffix(" )"))
    assert b"".join(parsed.strings).startswith(b"v=DKIM1; k=rsa; p=MII")
    assert "sesrelay.example.org.pem" in err


def test_nothing_is_overwritten(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "example.org") == 0
    before = (config.parent / "sesrelay.example.org.pem").read_bytes()
    assert run(config, "example.org") == 1
    assert "exists already" in capsys.readouterr().err
    assert (config.parent / "sesrelay.example.org.pem").read_bytes() == before


@as_root
@pytest.mark.parametrize("there", ["configuration", "folder"])
def test_who_reads_the_configuration_reads_the_key(config: Path, there: str) -> None:
    if there == "configuration":
        config.write_text("{}")
        os.chown(config, 0, UNNAMED)
    else:
        os.chown(config.parent, 0, UNNAMED)
    assert run(config, "example.org") == 0
    key = (config.parent / "sesrelay.example.org.pem").stat()
    assert (key.st_uid, key.st_gid, key.st_mode & 0o777) == (0, UNNAMED, 0o640)


@pytest.mark.parametrize("args", [("a..b",), ("example.org", "--selector", "_x"), ("example.org", "--type", "dsa"), ()])
def test_a_wrong_command_line(config: Path, args: tuple[str, ...]) -> None:
    assert run(config, *args) == 64


def test_a_folder_that_is_not_there(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config.parent / "gone" / "config.yaml", "example.org") == 1
    told = capsys.readouterr().err
    assert told == f"sesrelay: the key cannot be written: {config.parent}/gone: No such file or directory\n"


def test_show_prints_the_records_of_what_is_configured(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = []
    made = {}
    for selector, kind in (("r", "rsa"), ("e", "ed25519")):
        run(config, "example.org", "--selector", selector, "--type", kind, "--json")
        (record,) = json.loads(capsys.readouterr().out)["records"]
        made[record["name"]] = record
        entries.append(f"{{selector: {selector}, key_file: {selector}.example.org.pem}}")
    config.write_text(f"transports:\n  direct: {{type: direct, dkim: {{example.org: [{', '.join(entries)}]}}}}\n")
    assert main(["dkim", "show", "--json", "--config", str(config)]) == 0
    assert {one["name"]: one for one in json.loads(capsys.readouterr().out)["records"]} == made
    assert main(["dkim", "show", "Example.ORG", "--config", str(config)]) == 0
    said = capsys.readouterr().out
    assert all(record["value"] in said for record in made.values())
    assert main(["dkim", "show", "--format", "bind", "--config", str(config)]) == 0
    assert [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()] == [f"{name}." for name in made]
    assert main(["dkim", "show", "elsewhere.example", "--config", str(config)]) == 1
    assert "no key of elsewhere.example" in capsys.readouterr().err

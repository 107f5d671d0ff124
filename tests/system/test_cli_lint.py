"""`sesrelay lint`: what SES would take of a file, what would be changed and why; nothing leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sesrelay.cli import main

CLEAN = "From: a@example.com\nTo: b@example.org\nDate: Sat, 28 Nov 2026 10:00:00 +0000\nSubject: s\n\nHello.\n"


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    file = tmp_path / "mail.eml"
    file.write_text(CLEAN)
    return file


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "config.yaml"
    file.write_text(
        "hostname: host.example.com\n"
        "local: {aliases: {root: ops@example.com}}\n"
        "transports:\n"
        "  s: {type: ses, region: us-east-1, thread_ids: false, trusted_headers: [X-SES-MESSAGE-TAGS], rewrite_from: post@example.com}\n"
        "  one: {type: ses, region: us-east-1, api: v1}\n"
        "  by-smtp: {type: smtp, host: email-smtp.us-east-1.amazonaws.com}\n"
        "routes:\n"
        "  - {sender: example.com, transport: [direct, s]}\n"
        "  - {sender: away.example, transport: direct}\n"
        "  - {sender: smtp.example, transport: by-smtp}\n"
        "  - {sender: bad.example, reject: true}\n"
        "default_route: {transport: one}\n"
    )
    return str(file)


def found(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, Any]:
    code = main(["lint", *args, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_clean_message_is_taken_as_it_is(mail: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = mail.with_suffix(".out")
    code, document = found(
        capsys, str(mail), "--from", "<a@example.com>", "--to", "b@bücher.example", "--config", config, "--write", str(out)
    )
    assert code == 0
    notes = document.pop("notes")
    assert document == {
        "ok": True, "verdict": "unchanged", "sender": "a@example.com", "source": "a@example.com",
        "recipients": ["b@xn--bcher-kva.example"], "route": "example.com", "transport": "s", "size": len(CLEAN) + 6, "changes": [],
        "problems": [],
    }  # fmt: skip
    assert out.read_bytes() == CLEAN.replace("\n", "\r\n").encode()
    assert any("post@example.com" in note for note in notes)


def test_what_is_changed_is_told_with_its_reason(mail: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    mail.write_text(
        "Bcc: x@y.example\nSubject: 1\nX-SES-MESSAGE-TAGS: a=b\nMessage-ID: <1@a>\n" + CLEAN.replace("a@example.com", "root")
    )
    code, document = found(capsys, str(mail), "--from", "root", "--to", "root", "--config", config, "--transport", "one")
    assert code == 0
    assert document["verdict"] == "changed"
    assert document["source"] == "root@host.example.com"
    assert document["recipients"] == ["ops@example.com"]
    assert [one["change"] for one in document["changes"]] == [
        "completed From", "removed Bcc", "removed X-SES-MESSAGE-TAGS", "removed another Subject, different from the first",
        "put Message-ID into References",
    ]  # fmt: skip
    assert all(one["why"] for one in document["changes"])


def test_what_is_left_as_it_is_is_told_and_is_no_change(mail: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    mail.write_text(CLEAN.replace("Subject: s", "Subject: s\nContent-Transfer-Encoding: utf-8") + "Grüße\n", "utf-8")
    _, document = found(capsys, str(mail), "--from", "a@example.com", "--to", "b@example.org", "--config", config)
    assert document["verdict"] == "unchanged"
    assert document["changes"] == [
        {
            "change": "left as it is: 8-bit octets in a part with the unknown encoding 'utf-8'",
            "why": "SES accepts it, but may damage 8-bit octets that no part declares",
        }
    ]


@pytest.mark.parametrize(
    ("content", "sender", "to", "says"),
    [
        (CLEAN, "a@example.com", "jürgen@x.example", "5.6.7"),
        (CLEAN, "jürgen@example.com", "b@x.example", "5.6.7"),
        (CLEAN.replace("Subject: s", "Subject: s\nCc: jürgen@x.example"), "a@example.com", "b@x.example", "jürgen@x.example"),
        (CLEAN, "a@bad.example", "b@x.example", "5.7.1"),
        (CLEAN, "a@example.com", "nobody", "no alias"),
        (CLEAN + "x" * 990 + "\n" * 10_485_760, "a@elsewhere.example", "b@x.example", "554 5.3.4 The message has "),
        ("X-A: b\n" * 150_000 + CLEAN, "a@example.com", "b@x.example", "1 MiB"),
        ("From: a@example.com" + ", a@example.com" * 2_000 + "\n\nhi\n", "a@example.com", "b@x.example", "16 KiB"),
        (CLEAN + "x\n" * 9_000_000, "a@example.com", "b@x.example", "552 5.3.4 The message is larger than this relay accepts"),
        ("Received: by h\n" * 51 + CLEAN, "a@example.com", "b@x.example", "554 5.4.6 Too many hops"),
    ],
)
def test_what_ses_would_not_take_exits_1(
    content: str, sender: str, to: str, says: str, mail: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mail.write_text(content)
    code, document = found(capsys, str(mail), "--from", sender, "--to", to, "--config", config)
    assert code == 1
    assert document["verdict"] == "refused"
    assert says in " ".join(document["problems"])


def test_what_the_relay_just_takes_is_taken(mail: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    mail.write_text("Received: by h\n" * 50 + CLEAN)
    size = len(mail.read_text().replace("\n", "\r\n"))
    with Path(config).open("a") as file:
        file.write(f"limits: {{message_size: {size}}}\n")
    args = (str(mail), "--from", "a@example.com", "--to", "b@x.example", "--config", config)
    assert found(capsys, *args)[1]["problems"] == []
    mail.write_text(mail.read_text() + ".\n")
    assert "5.3.4" in found(capsys, *args)[1]["problems"][0]


@pytest.mark.parametrize(("header_from", "kept"), [("c@blog.example.com", "c@blog.example.com"), ("c@example.com", "")])
def test_a_sender_that_is_kept_for_somebody_is_told(
    header_from: str, kept: str, mail: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path(config).open("a") as file:
        file.write("access: {local_users: {www-data: [blog.example.com]}}\n")
    mail.write_text(CLEAN.replace("a@example.com", header_from))
    code, document = found(capsys, str(mail), "--from", "a@example.com", "--to", "b@x.example", "--config", config)
    assert code == 0
    assert [note for note in document["notes"] if "access" in note] == (
        [f"only the users that access names may send as {kept}; lint does not know who will"] if kept else []
    )


def test_the_smtp_endpoint_of_ses_is_ses(mail: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, document = found(capsys, str(mail), "--from", "a@smtp.example", "--to", "b@example.org", "--config", config)
    assert document["transport"] == "by-smtp"
    assert not any("not SES" in note for note in document["notes"])


@pytest.mark.parametrize(("route_by", "source"), [("auto", "a@example.com"), ("envelope", "www-data@host.example.com")])
def test_the_source_is_the_one_that_the_daemon_would_name(
    route_by: str, source: str, mail: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path(config).open("a") as file:
        file.write(f"route_by: {route_by}\n")
    _, document = found(capsys, str(mail), "--from", "www-data", "--to", "b@example.org", "--config", config)
    assert document["source"] == source


def test_mail_that_goes_another_way_says_so(mail: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(mail), "--from", "a@away.example", "--to", "b@example.org", "--config", config]) == 0
    assert "its route goes through direct, not SES" in capsys.readouterr().out


@pytest.mark.parametrize(
    "args",
    [
        ["{mail}", "--from", "a@b@c", "--to", "b@example.org"],
        ["{mail}", "--from", "a@example.com"],
        ["{mail}.not", "--from", "a@example.com", "--to", "b@example.org"],
        ["{mail}", "--from", "a@example.com", "--to", "b@example.org", "--transport", "direct"],
    ],
)
def test_a_wrong_command_line_exits_64(args: list[str], mail: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", *(arg.format(mail=mail) for arg in args), "--config", config]) == 64
    assert "Error:" in capsys.readouterr().err


def test_a_message_comes_by_standard_input_without_any_configuration() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sesrelay", "lint", "-", "--from", "<>", "--to", "b@example.org"],
        input=CLEAN.replace("Subject", "Message-ID: <1@a>\nSubject"), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("SES would accept it, with changes\n  put Message-ID into References: ")

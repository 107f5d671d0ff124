"""Secrets: where they may stand, who may read them, and that they are never shown."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from sesrelay.config import private
from sesrelay.config.loading import load
from sesrelay.config.problem import ConfigError
from sesrelay.config.transports import SesTransport, SmtpTransport

CANARY = "canary-7f3a9c"


def write(file: Path, text: str, mode: int = 0o640) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


def problems(path: Path, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ or {})
    return [str(problem) for problem in caught.value.problems]


RELAY = "transports: {r: {type: smtp, host: h.example, username: u, %s}}\n"


def test_a_secret_file_is_read_and_its_line_feed_dropped(tmp_path: Path) -> None:
    write(tmp_path / "r.password", f" {CANARY} \n", 0o600)
    config = write(tmp_path / "config.yaml", RELAY % "password_file: r.password", 0o644)
    relay = load(config, environ={}).config.transports["r"]
    assert isinstance(relay, SmtpTransport) and relay.password is not None
    assert relay.password.get_secret_value() == f" {CANARY} "
    assert relay.tls == "required"


def test_a_site_names_its_secret_from_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path / "config.yaml", "{}")
    write(tmp_path / "sites.d" / "s.secret", CANARY, 0o600)
    write(
        tmp_path / "sites.d" / "s.yaml",
        "transports: {s: {type: ses, access_key_id: AKIA1, secret_access_key_file: s.secret}}\n",
    )
    ses = load(tmp_path / "config.yaml", environ={}).config.transports["s"]
    assert isinstance(ses, SesTransport) and ses.secret_access_key is not None
    assert ses.secret_access_key.get_secret_value() == CANARY


def test_a_line_end_behind_a_key_id_of_the_environment_is_not_part_of_it(tmp_path: Path) -> None:
    transport = "transports: {s: {type: ses, access_key_id: '${KEY_ID}', secret_access_key: s}}\n"
    config = write(tmp_path / "config.yaml", transport, 0o600)
    ses = load(config, environ={"KEY_ID": "AKIA1\n"}).config.transports["s"]
    assert isinstance(ses, SesTransport)
    assert ses.access_key_id == "AKIA1"


def test_a_systemd_credential_comes_first_and_its_mode_is_systemds_affair(tmp_path: Path) -> None:
    write(tmp_path / "r.password", "beside", 0o600)
    write(tmp_path / "credentials" / "r.password", CANARY, 0o444)
    config = write(tmp_path / "config.yaml", RELAY % "password_file: r.password")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    relay = load(config, environ=environ).config.transports["r"]
    assert isinstance(relay, SmtpTransport) and relay.password is not None
    assert relay.password.get_secret_value() == CANARY
    other = load(config, environ={"CREDENTIALS_DIRECTORY": str(tmp_path / "none")}).config.transports["r"]
    assert isinstance(other, SmtpTransport) and other.password is not None and other.password.get_secret_value() == "beside"


def test_a_verb_finds_the_credentials_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "SERVICE", tmp_path / "service")
    write(tmp_path / "service" / "r.password", CANARY, 0o400)
    config = write(tmp_path / "config.yaml", RELAY % "password_file: r.password")

    def password() -> str:
        relay = load(config, environ={}).config.transports["r"]
        assert isinstance(relay, SmtpTransport) and relay.password is not None
        return relay.password.get_secret_value()

    assert password() == CANARY
    write(tmp_path / "r.password", "beside", 0o600)
    assert password() == "beside", "what the file's own neighbour says is no other relay's"


def test_the_token_of_the_page(tmp_path: Path) -> None:
    write(tmp_path / "http.token", CANARY, 0o600)
    config = write(tmp_path / "config.yaml", "http: {listen: '0.0.0.0:0', token_file: http.token}\n")
    token = load(config, environ={}).config.http.token
    assert token is not None and token.get_secret_value() == CANARY


@pytest.mark.parametrize("mode", [0o644, 0o602, 0o601])
def test_a_secret_that_others_can_access_is_refused(mode: int, tmp_path: Path) -> None:
    secret = write(tmp_path / "r.password", CANARY, mode)
    config = write(tmp_path / "config.yaml", RELAY % "password_file: r.password")
    assert problems(config) == [
        f"{config}:1:75: transports.r.password_file: other users can access the secret in {secret}, mode {mode:04o} (chmod o-rwx "
        f"{secret})"
    ]
    secret.chmod(0o640)
    inline = write(tmp_path / "inline.yaml", RELAY % f"password: {CANARY}", mode)
    assert problems(inline) == [
        f"{inline}:1:70: transports.r.password: a secret in a file that other users can access, mode {mode:04o} "
        f"(chmod o-rwx {inline}, or use password_file)"
    ]
    inline.chmod(0o640)
    load(inline, environ={})


def test_a_secret_from_the_environment_is_not_in_the_file(tmp_path: Path) -> None:
    config = write(tmp_path / "config.yaml", RELAY % "password: '${RELAY_PASSWORD}'", 0o644)
    relay = load(config, environ={"RELAY_PASSWORD": CANARY}).config.transports["r"]
    assert isinstance(relay, SmtpTransport) and relay.password is not None
    assert relay.password.get_secret_value() == CANARY


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "is empty"), ("a\nb\n", "has more than one line"), ("x" * 70_000, "is larger than 64 KiB")],
)
def test_a_file_that_is_no_secret(content: str, said: str, tmp_path: Path) -> None:
    write(tmp_path / "r.password", content, 0o600)
    (line,) = problems(write(tmp_path / "config.yaml", RELAY % "password_file: r.password"))
    assert said in line


def test_both_forms_are_one_too_many(tmp_path: Path) -> None:
    write(tmp_path / "r.password", CANARY, 0o600)
    (line,) = problems(write(tmp_path / "config.yaml", RELAY % "password: x, password_file: r.password"))
    assert "transports.r.password_file: password is set too (use only one of the two)" in line


def test_an_access_token_is_read_at_the_start_and_known_by_its_file(tmp_path: Path) -> None:
    write(tmp_path / "r.token", f"{CANARY}\n", 0o600)
    config = write(tmp_path / "config.yaml", RELAY % "token_file: r.token")
    relay = load(config, environ={}).config.transports["r"]
    assert isinstance(relay, SmtpTransport) and relay.token is not None
    assert relay.token.get_secret_value() == CANARY
    assert relay.token_file == tmp_path / "r.token"
    assert CANARY not in repr(relay)
    for more in ("token: x", "password: x"):
        (line,) = problems(write(tmp_path / "config.yaml", RELAY % f"token_file: r.token, {more}"))
        assert line.endswith(f"transports.r.token_file: {more[:-3]} is set too (use only one of the two)")
    (line,) = problems(write(tmp_path / "config.yaml", "transports: {r: {type: smtp, host: h.example, token_file: r.token}}\n"))
    assert line.endswith("transports.r.token_file: has no effect without username")


def test_a_loaded_secret_is_never_shown(tmp_path: Path) -> None:
    write(tmp_path / "s", CANARY, 0o600)
    config = write(
        tmp_path / "config.yaml",
        "transports:\n"
        f"  a: {{type: smtp, host: h.example, username: u, password: {CANARY}}}\n"
        "  b: {type: smtp, host: h.example, username: u, password_file: s}\n"
        f"  c: {{type: ses, access_key_id: AKIA1, secret_access_key: {CANARY}}}\n"
        "http: {token_file: s}\n",
    )
    loaded = load(config, environ={})
    shown = (repr(loaded), str(loaded), repr(loaded.config), loaded.config.model_dump_json(), str(loaded.config.model_dump()))
    assert not any(CANARY in text for text in shown)


@pytest.mark.parametrize(
    "text",
    [
        f"transports: {{a: {{type: smtp, password: {CANARY}, username: 1}}}}",
        f"transports: {{a: {{type: smtp, host: h, pasword: {CANARY}}}}}",
        f"transports: {{a: {{type: smtp, host: h, username: u, password: [{CANARY}]}}}}",
        f"transports: {{a: {{type: smtp, host: h, username: u, password: {{{CANARY}x: 1}}}}}}".replace(
            f"{{{CANARY}x: 1}}", f"['{CANARY}']"
        ),
        f"transports: {{a: {{type: ses, secret_access_key: *{CANARY}}}}}",
        f"transports: {{a: {{type: ses, secret_access_key: !{CANARY} x}}}}",
        f"transports: {{a: {{type: ses, secret_access_key: !<{CANARY}> x}}}}",
        f"transports: {{a: {{type: ses, secret_access_key: !h!{CANARY} x}}}}",
        f"transports: {{a: {{type: ses, access_key_id: A, secret_access_key: 'x${{{CANARY}'}}}}",
        f"transports: {{a: {{type: ses, access_key_id: A, secret_access_key: 'x${{{CANARY.replace('-', '_')}}}'}}}}",
        f"queue: {{url: 'postgresql://u:{CANARY}@h/db'}}",
        f"queue: {{url: 'mysql://u:{CANARY}@h/db'}}",
        f"access: {{users: [{{name: a, password_hash: {CANARY}}}]}}",
        f"http: {{token: [{CANARY}], listen: '0.0.0.0:80'}}",
        f"http: {CANARY}: x",
        f'transports: {{a: {{type: ses, secret_access_key: "{CANARY}}}}}',
        f"transports:\n  a:\n    type: ses\n    secret_access_key: {CANARY}\n   x: y",
    ],
)
@pytest.mark.parametrize("libyaml", [True, False])
def test_a_problem_never_repeats_a_secret(text: str, libyaml: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    monkeypatch.setattr(yaml, "__with_libyaml__", libyaml and yaml.__with_libyaml__)
    config = write(tmp_path / "config.yaml", text, 0o644)
    with pytest.raises(ConfigError) as caught:
        load(config, environ={})
    whole = "\n".join((repr(caught.value), *map(str, caught.value.problems), *traceback.format_exception(caught.value)))
    assert CANARY not in whole
    assert CANARY.replace("-", "_") not in whole


@pytest.mark.parametrize("value", ["0123", "1:30", "no", "12345", "1.5", "0x7F"])
def test_a_secret_that_yaml_reads_as_something_else(value: str, tmp_path: Path) -> None:
    (line,) = problems(write(tmp_path / "config.yaml", RELAY % f"password: {value}"))
    key = "transports.r.password: "
    assert key in line
    said = line.partition(key)[2]
    assert value not in said.split(" (")[0].split() and "quotes" in said
    assert not any(digits in said for digits in ("83", "90", "12345", "127"))

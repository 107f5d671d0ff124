"""Who gets in, as `check` sees it: TLS files, AUTH, users, open relays, each with the line it must get."""

from __future__ import annotations

import datetime
import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
import trustme

import peers
from sesrelay.config.certificates import validity
from sesrelay.config.loading import Loaded, load
from sesrelay.config.problem import ConfigError
from sesrelay.setup.checkup.machine import reach

HASH = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
USERS = f"access: {{users: [{{name: blog, password_hash: '{HASH}'}}]}}\n"
OPEN = f"access: {{networks: [0.0.0.0/0], users: [{{name: blog, password_hash: '{HASH}'}}]}}\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make certificates once: a good pair, a stranger's key, one that has expired, one that is yet to come."""
    folder, ca = tmp_path_factory.mktemp("pem"), trustme.CA()
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    for name, begin, end in (("good", -day, day), ("stranger", -day, day), ("old", -2 * day, -day), ("early", day, 2 * day)):
        pair = ca.issue_cert("relay.example.net", not_before=now + begin, not_after=now + end)
        pair.private_key_pem.write_to_path(folder / f"{name}.key")
        for pem in pair.cert_chain_pems:
            pem.write_to_path(folder / f"{name}.pem", append=True)
        (folder / f"{name}.key").chmod(0o600)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def checked(folder: Path, text: str, now: float | None = None) -> Loaded:
    file = folder / "config.yaml"
    file.write_text(text)
    file.chmod(0o600)
    return load(file, environ={}, now=now)


def problems(folder: Path, text: str, now: float | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        checked(folder, text, now)
    return [str(problem).replace(f"{folder}/", "").removeprefix("config.yaml:") for problem in caught.value.problems]


def today() -> float:
    return datetime.datetime.now(datetime.UTC).timestamp()


def listener(tls: str = "starttls", auth: str = "none", pem: str = "good", key: str = "", listen: str = "127.0.0.1:587") -> str:
    """Return one listener, a key a line: listen on line 2, tls 3, auth 4, certificate 5, key 6."""
    files = "" if tls == "none" else f"    certificate: {pem}.pem\n    key: {key or pem}.key\n"
    return f"listeners:\n  - listen: {listen}\n    tls: {tls}\n    auth: {auth}\n{files}"


@pytest.mark.parametrize(
    "text",
    [
        listener(),
        listener("implicit", "required") + USERS,
        listener("starttls", "optional") + USERS,
        listener("none", "any"),
        listener("starttls", "any"),
        listener("implicit", "required", listen="0.0.0.0:465") + OPEN,
        listener("implicit", "required", listen="0.0.0.0:465") + USERS,
        listener("implicit", "optional", listen="0.0.0.0:465") + OPEN.replace("0.0.0.0/0", "192.0.2.0/24"),
    ],
)
def test_good_doors(text: str, folder: Path) -> None:
    config = checked(folder, text, today()).config
    assert config.listeners[0].certificate in (None, folder / "good.pem")


def test_one_file_may_hold_certificate_and_key(folder: Path) -> None:
    both = folder / "both.pem"
    both.write_bytes((folder / "good.key").read_bytes() + (folder / "good.pem").read_bytes())
    both.chmod(0o640)
    text = "listeners: [{listen: '127.0.0.1:587', tls: starttls, certificate: both.pem, key: both.pem}]"
    assert checked(folder, text, today()).config.listeners[0].key == both


def test_a_key_may_be_a_credential_of_systemd(folder: Path) -> None:
    credentials = folder / "credentials"
    credentials.mkdir()
    (folder / "good.key").rename(credentials / "good.key")
    (credentials / "good.key").chmod(0o444)
    file = folder / "config.yaml"
    file.write_text(listener())
    loaded = load(file, environ={"CREDENTIALS_DIRECTORY": str(credentials)})
    assert loaded.config.listeners[0].key == credentials / "good.key"


def test_a_hash_in_a_file(folder: Path) -> None:
    (folder / "blog.hash").write_text(HASH + "\n")
    (folder / "blog.hash").chmod(0o640)
    user = checked(folder, "access: {users: [{name: blog@example.com, password_hash_file: blog.hash}]}").config.access.users[0]
    assert user.password_hash is not None
    assert user.password_hash.get_secret_value() == HASH


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (listener("implicit", pem="gone"), ["5:18: listeners[0].certificate: gone.pem cannot be read: No such file or directory",
                                            "6:10: listeners[0].key: gone.key cannot be read: No such file or directory"]),
        (listener(key="stranger"), ["6:10: listeners[0].key: the key in stranger.key does not belong to the certificate in good.pem"]),
        (listener().replace("good.pem", "good.key"), ["5:18: listeners[0].certificate: good.key holds no certificate (use PEM: first the server's own certificate, then its chain)"]),
        (listener().replace("good.key", "good.pem"), ["6:10: listeners[0].key: other users can access the key in good.pem, mode 0644 (chmod o-rwx good.pem)"]),
        (listener().replace("good.key", "public.pem"), ["6:10: listeners[0].key: public.pem holds no private key (use PEM)"]),
        (listener().replace("good.key", "shut.key"), ["6:10: listeners[0].key: the key in shut.key is protected by a passphrase (remove it: openssl pkey -in shut.key -out NEW)"]),
        (listener().replace("good.key", "open.key"), ["6:10: listeners[0].key: other users can access the key in open.key, mode 0644 (chmod o-rwx open.key)"]),
        (listener().replace("good.pem", "broken.pem"), ["5:18: listeners[0].certificate: broken.pem holds no certificate (use PEM: first the server's own certificate, then its chain)"]),
        (listener().replace("good.pem", "config.yaml"), ["5:18: listeners[0].certificate: config.yaml is not a PEM file"]),
        (listener().replace("good.pem", "."), ["5:18: listeners[0].certificate: DIR cannot be read: Is a directory"]),
    ],
)  # fmt: skip
def test_files_that_cannot_serve(text: str, expected: list[str], folder: Path) -> None:
    (folder / "good.pem").chmod(0o644)
    shutil.copy(folder / "good.pem", folder / "public.pem")
    (folder / "public.pem").chmod(0o600)
    shutil.copy(folder / "good.key", folder / "open.key")
    (folder / "open.key").chmod(0o644)
    (folder / "broken.pem").write_text((folder / "good.pem").read_text()[:200])
    shut = ["openssl", "pkey", "-in", folder / "good.key", "-aes128", "-passout", "pass:x", "-out", folder / "shut.key"]
    if "shut.key" in text:
        peers.require("openssl")
        subprocess.run(shut, check=True)
        (folder / "shut.key").chmod(0o600)
    assert [line.replace(str(folder), "DIR") for line in problems(folder, text, today())] == expected


RELAY, HOSTS = "type: smtp, host: relay.example.net", "type: direct"
GONE = "gone.pem cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("way", "problem"),
    [
        (f"{RELAY}, tls: required, ca_file: gone.pem", GONE),
        (f"{RELAY}, tls: implicit, ca_file: good.key", "good.key holds no certificate (use PEM with the certificates of the issuers to trust)"),
        (f"{HOSTS}, tls: required, ca_file: .", "DIR cannot be read: Is a directory"),
        (f"{HOSTS}, tls: mta-sts, ca_file: fifo", "fifo cannot be read: it is not a regular file"),
        (f"{HOSTS}, tls_policy: {{example.com: required}}, ca_file: gone.pem", GONE),
        (f"{HOSTS}, tls: required, ca_file: good.pem", None),
        (f"{HOSTS}, tls: dane, ca_file: gone.pem", None),
        (f"{RELAY}, tls: opportunistic, ca_file: gone.pem", None),
    ],
)  # fmt: skip
def test_issuers_that_cannot_be_read_are_said_where_they_are_wanted(way: str, problem: str | None, folder: Path) -> None:
    """A start or reload would fail of them."""
    os.mkfifo(folder / "fifo")
    text = f"transports:\n  out: {{{way}}}\n"
    if problem is None:
        assert "out" in checked(folder, text).config.transports
    else:
        column = len("  out: {") + way.index("ca_file: ") + len("ca_file: ") + 1
        (line,) = problems(folder, text)
        assert line.replace(str(folder), "DIR") == f"2:{column}: transports.out.ca_file: {problem}"


def test_dates_matter_to_check_and_reload_and_not_to_a_start(folder: Path) -> None:
    yesterday = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)).date()
    line = f"5:18: listeners[0].certificate: the certificate in old.pem expired on {yesterday} (renew it)"
    assert problems(folder, listener(pem="old"), today()) == [line]
    assert "early.pem is not valid before" in problems(folder, listener(pem="early"), today())[0]
    assert checked(folder, listener(pem="old")).config.listeners[0].tls == "starttls"


def test_the_dates_are_those_that_openssl_reads(folder: Path) -> None:
    for name in ("good", "old"):
        first, last = validity(
            ssl.PEM_cert_to_DER_cert(
                (folder / f"{name}.pem").read_text().partition("-----END CERT")[0] + "-----END CERTIFICATE-----\n"
            )
        )
        decoded = ssl._ssl._test_decode_cert(str(folder / f"{name}.pem"))  # type: ignore[attr-defined]
        assert (first, last) == (ssl.cert_time_to_seconds(decoded["notBefore"]), ssl.cert_time_to_seconds(decoded["notAfter"]))


CLEAR = "passwords would be sent in clear text (set tls: starttls or implicit, with certificate and key"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (listener("none", "required") + USERS, [f"4:11: listeners[0].auth: {CLEAR}; on loopback, auth: any accepts every password)"]),
        (listener("none", "required", listen="0.0.0.0:25") + OPEN, [f"4:11: listeners[0].auth: {CLEAR})"]),
        (listener("starttls", "optional"), ["4:11: listeners[0].auth: nobody could log in (add a user under access.users)"]),
        (listener("implicit", "any", listen="0.0.0.0:465") + OPEN.replace("0.0.0.0/0", "192.0.2.0/24"),
         ["4:11: listeners[0].auth: any accepts every password and is allowed on loopback only (use required, with tls and access.users)"]),
        (listener("starttls", listen="'[::]:25'"),
         ["2:13: listeners[0].listen: listens beyond loopback, but access.networks lists only loopback (list the networks that may connect, or listen on 127.0.0.1)"]),
        (listener("implicit", "optional", listen="0.0.0.0:465") + OPEN,
         ["2:13: listeners[0].listen: an open relay: listens beyond loopback, but access.networks allows everybody (0.0.0.0/0) (list only the networks that may connect, or use auth: required with tls)"]),
        (listener("none", listen="0.0.0.0:25") + "access: {networks: ['0.0.0.0/1', '128.0.0.0/1']}\n",
         ["2:13: listeners[0].listen: an open relay: listens beyond loopback, but access.networks allows everybody (0.0.0.0/0) (list only the networks that may connect, or use auth: required with tls)"]),
        (listener("none", listen="'[::]:25'") + "access: {networks: ['::/0']}\n",
         ["2:13: listeners[0].listen: an open relay: listens beyond loopback, but access.networks allows everybody (::/0) (list only the networks that may connect, or use auth: required with tls)"]),
        ("listeners:\n  - listen: 127.0.0.1:25\n    certificate: good.pem\n",
         ["3:18: listeners[0].certificate: has no effect (set tls: starttls or implicit)"]),
        ("access:\n  users:\n    - name: blog\n      password_hash: letmein\n",
         ["4:22: access.users[0].password_hash: not an argon2 hash (create one with `sesrelay password-hash`)"]),
        ("access:\n  users:\n    - {name: blog, password_hash_file: blog.hash}\n",
         ["3:40: access.users[0].password_hash_file: not an argon2 hash (create one with `sesrelay password-hash`)"]),
        (f"access:\n  users:\n    - name: blog\n      password_hash: '{HASH.replace('m=64', 'm=4194304')}'\n",
         ["4:22: access.users[0].password_hash: an argon2 hash that cannot be verified in reasonable time and memory (create another with `sesrelay password-hash`)"]),
        (f"access:\n  users:\n    - {{name: blog, password_hash: '{HASH}'}}\n    - {{name: blog, password_hash: '{HASH}'}}\n",
         ["4:14: access.users[1].name: 'blog' is defined twice (first at config.yaml:3:14)"]),
        (f"access:\n  users:\n    - {{name: 'a b', password_hash: '{HASH}'}}\n",
         ["3:14: access.users[0].name: must be a user name: up to 128 letters, digits and . _ + @ -, the first a letter or digit"]),
        (f"access:\n  users:\n    - {{name: blog, password_hash: '{HASH}', password_hash_file: blog.hash}}\n",
         ["3:147: access.users[0].password_hash_file: password_hash is set too (use only one of the two)"]),
        ("listeners:\n  - {listen: 127.0.0.1:4001, tsl: x}\n  - {listen: 127.0.0.1:4002, auth: required}\n"
         f"access:\n  users:\n    - {{nam: blog, password_hash: '{HASH}'}}\n    - {{name: shop, password_hash: letmein}}\n",
         ["2:30: listeners[0].tsl: unknown key (did you mean tls?)",
          f"3:36: listeners[1].auth: {CLEAR}; on loopback, auth: any accepts every password)",
          "6:7: access.users[0].name: missing",
          "6:8: access.users[0].nam: unknown key (did you mean name?)",
          "7:35: access.users[1].password_hash: not an argon2 hash (create one with `sesrelay password-hash`)"]),
    ],
)  # fmt: skip
def test_doors_that_would_serve_anybody_or_nobody(text: str, expected: list[str], folder: Path) -> None:
    (folder / "blog.hash").write_text("letmein\n")
    (folder / "blog.hash").chmod(0o600)
    found = problems(folder, text, today())
    assert found == expected
    assert "letmein" not in "".join(found)


@pytest.mark.parametrize(("networks", "told"), [("[127.0.0.0/8, '::1']", True), ("[127.0.0.0/8, 10.0.0.0/8]", False)])
def test_doctor_tells_of_a_listener_that_no_other_host_may_reach(folder: Path, networks: str, told: bool) -> None:
    door = "tls: starttls, auth: required, certificate: good.pem, key: good.key"
    loaded = checked(
        folder,
        f"listeners: [{{listen: '0.0.0.0:587', {door}}}, {{listen: '127.0.0.1:25'}}]\n"
        f"access: {{networks: {networks}, users: [{{name: blog, password_hash: '{HASH}'}}]}}\n",
    )
    assert [(one.subject, one.status) for one in reach(loaded)] == ([("0.0.0.0:587", "warn")] if told else [])


def test_doctor_tells_of_a_listener_on_loopback_that_nobody_may_reach(folder: Path) -> None:
    text = "listeners: [{listen: '127.0.0.1:25'}, {listen: '[::1]:25'}, {listen: 'unix:s.sock'}]\naccess: {networks: [%s]}\n"
    told = {
        "10.0.0.0/8": ["127.0.0.1:25", "[::1]:25"],
        "10.0.0.0/8, 127.0.0.0/8": ["[::1]:25"],
        "127.0.0.1, '::1'": [],
        "0.0.0.0/0, '::/0'": [],
    }
    for networks, names in told.items():
        found = list(reach(checked(folder, text % networks)))
        assert [(one.subject, one.status) for one in found] == [(name, "warn") for name in names], networks

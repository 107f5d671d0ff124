"""`dkim` in the configuration: either form, its files, and what is said about those that cannot serve."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from engine_rig import Witness
from fakes import FakeClock
from sesrelay.app.ways_out import Shared
from sesrelay.app.wiring import snapshot
from sesrelay.config.dkim_keys import generate
from sesrelay.config.loading import load
from sesrelay.config.problem import ConfigError
from sesrelay.config.transports import DirectTransport

PEM = generate("rsa")[0]
ED_PEM = generate("ed25519")[0]


def write(folder: Path, dkim: str, pem: bytes = PEM, mode: int = 0o640) -> Path:
    (folder / "k.pem").write_bytes(pem)
    (folder / "k.pem").chmod(mode)
    (folder / "e.pem").write_bytes(ED_PEM)
    (folder / "e.pem").chmod(0o600)
    config = folder / "c.yaml"
    config.write_text(f"transports:\n  direct:\n    type: direct\n    dkim: {dkim}\n")
    return config


def problems(config: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(config, environ={})
    return [str(problem).removeprefix(f"{config}:") for problem in caught.value.problems]


def test_one_key_or_several(tmp_path: Path) -> None:
    text = "{Example.ORG: {selector: S1, key_file: k.pem}, b.example: [{selector: r, key_file: k.pem}, {selector: e, key_file: e.pem}]}"
    loaded = load(write(tmp_path, text), environ={})
    direct = loaded.config.transports["direct"]
    assert isinstance(direct, DirectTransport)
    assert [entry.selector for entry in direct.dkim["example.org"]] == ["s1"]
    assert [entry.key_file for entry in direct.dkim["b.example"]] == [tmp_path / "k.pem", tmp_path / "e.pem"]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    config = write(tmp_path, "{example.org: {selector: s1, key_file: k.pem}}", mode=0o644)
    (found,) = problems(config)
    assert found == (
        f"4:50: transports.direct.dkim.example.org.key_file: other users can access the secret in {tmp_path}/k.pem, "
        f"mode 0644 (chmod o-rwx {tmp_path}/k.pem)"
    )


def encrypted() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


def of_curve() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def of_parts_that_do_not_belong_together() -> bytes:
    one, other = (rsa.generate_private_key(65537, 2048).private_numbers() for _ in range(2))
    mixed = rsa.RSAPrivateNumbers(one.p, one.q, other.d, other.dmp1, one.dmq1, one.iqmp, one.public_numbers)
    key = mixed.private_key(unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("pem", "said"),
    [
        (of_parts_that_do_not_belong_together(), "holds a key that cannot sign"),
        (b"", "holds no private key (use PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no private key (use PEM"),
        (PEM.replace(b"PRIVATE", b"PUBLIC"), "holds no private key (use PEM"),
        (encrypted(), "is protected by a passphrase"),
        (of_curve(), "holds a key of a type that DKIM does not support"),
    ],
)
def test_a_file_that_cannot_sign_is_refused(tmp_path: Path, pem: bytes, said: str) -> None:
    (found,) = problems(write(tmp_path, "{example.org: [{selector: s1, key_file: k.pem}]}", pem))
    assert f"4:51: transports.direct.dkim.example.org[0].key_file: {tmp_path}/k.pem {said}" in found


@pytest.mark.parametrize(
    ("dkim", "said"),
    [
        ("{example.org: {selector: s1}}", "transports.direct.dkim.example.org.key_file: missing"),
        ("{example.org: {selector: s_1, key_file: k.pem}}", "transports.direct.dkim.example.org.selector: must be a selector"),
        ("{example.org: {selector: s1, key_fil: k.pem, key_file: k.pem}}", "unknown key (did you mean key_file?)"),
        ("{example.org: []}", "an empty list"),
        ("{example.org: [{selector: a, key_file: k.pem}, {selector: A, key_file: e.pem}]}", "a selector is used twice"),
        ("{example.org: {selector: s1, key_file: gone.pem}}", "cannot be read: No such file"),
        ("{a..b: {selector: s1, key_file: k.pem}}", "must be a domain"),
        ("s1.pem", "must be a mapping"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, dkim: str, said: str) -> None:
    assert any(said in found for found in problems(write(tmp_path, dkim))), problems(write(tmp_path, dkim))


def test_a_seed_in_base64_is_a_key_too(tmp_path: Path) -> None:
    """As dkimpy's own dknewkey writes it."""
    seed = b"nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=\n"  # RFC 8463 §A.2
    loaded = load(write(tmp_path, "{example.org: {selector: s1, key_file: k.pem}}", seed), environ={})
    made = snapshot(loaded, Shared(FakeClock(), Witness())).transports["direct"]
    (key,) = made._options.dkim["example.org"]  # type: ignore[attr-defined]
    assert key.algorithm == "ed25519-sha256"
    assert "nWGx" not in repr(key)

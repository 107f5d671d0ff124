"""DANE: which certificates keep to which TLSA records, without any network."""

from __future__ import annotations

import datetime
import hashlib
import ssl

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from fakes import FakeClock
from sesrelay.transport.exchangers.mx import MailHosts
from sesrelay.transport.tls import dane_proof
from sesrelay.transport.tls.dane import Tlsa, TlsaSet
from sesrelay.transport.tls.dane_proof import DaneProof
from sesrelay.transport.tls.security import NotProven

NOW = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)
ROOT = trustme.CA()
ISSUER = ROOT.create_child_ca()
OTHER = trustme.CA()
LEAF = ISSUER.issue_cert("mx.example.org")
EXPIRED = ISSUER.issue_cert(
    "mx.example.org", not_before=NOW - datetime.timedelta(days=20), not_after=NOW - datetime.timedelta(days=10)
)


def load(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def chain(leaf: trustme.LeafCert) -> list[x509.Certificate]:
    return [load(blob.bytes()) for blob in leaf.cert_chain_pems]


def data(certificate: x509.Certificate, selector: int, matching: int) -> bytes:
    der = (
        certificate.public_bytes(Encoding.DER)
        if selector == 0
        else certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    return {0: lambda: der, 1: hashlib.sha256(der).digest, 2: hashlib.sha512(der).digest}[matching]()


def record(usage: int, selector: int, matching: int, certificate: x509.Certificate) -> Tlsa:
    return Tlsa(usage, selector, matching, data(certificate, selector, matching))


def holds(records: list[Tlsa], certificates: list[x509.Certificate], *names: str) -> str:
    """Return what is wrong, or nothing."""
    proof = DaneProof(tuple(records), names or ("mx.example.org",), FakeClock(now=NOW.timestamp()))
    try:
        proof.check(certificates)
    except NotProven as error:
        return str(error)
    return ""


ISSUER_CERT, ROOT_CERT, OTHER_CERT = load(ISSUER.cert_pem.bytes()), load(ROOT.cert_pem.bytes()), load(OTHER.cert_pem.bytes())
ALL = [(selector, matching) for selector in (0, 1) for matching in (0, 1, 2)]


@pytest.mark.parametrize(("selector", "matching"), ALL)
def test_the_hosts_own_certificate(selector: int, matching: int) -> None:
    own = record(3, selector, matching, chain(LEAF)[0])
    assert own.usable
    assert holds([own], chain(LEAF)) == ""
    assert holds([own], chain(LEAF), "another.example") == ""  # names do not matter: RFC 7672 §3.1.1
    assert holds([own], chain(EXPIRED)) == "DANE: the certificate matches no TLSA record"
    assert holds([record(3, selector, matching, ISSUER_CERT)], chain(LEAF)) != ""


def test_nor_do_its_dates() -> None:
    assert holds([record(3, 1, 1, chain(EXPIRED)[0])], chain(EXPIRED)) == ""


@pytest.mark.parametrize(("selector", "matching"), ALL)
def test_an_issuer(selector: int, matching: int) -> None:
    issuer = record(2, selector, matching, ISSUER_CERT)
    assert len(chain(LEAF)) == 2
    assert holds([issuer], chain(LEAF)) == ""
    assert holds([issuer], chain(LEAF), "x.test", "mx.example.org") == ""
    assert "does not lead" in holds([issuer], chain(LEAF), "another.example")
    assert "does not lead" in holds([issuer], chain(EXPIRED))
    assert holds([record(2, selector, matching, OTHER_CERT)], chain(LEAF)) != ""


KEY_FOR_AGREEMENT = x25519.X25519PrivateKey.generate().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("sent", [1, 2])
def test_an_issuers_key_that_stands_in_the_dns_whole_needs_no_certificate(sent: int) -> None:
    """RFC 7671 §5.2.3: a key has no name, so it is whoever the chain names as an issuer."""
    issuer = (ISSUER_CERT, ROOT_CERT)[sent - 1]
    host = chain(LEAF)[:sent]
    assert holds([record(2, 1, 0, issuer)], host) == ""
    assert "does not lead" in holds([record(2, 1, 0, issuer)], host, "another.example")
    assert "does not lead" in holds([record(2, 1, 0, OTHER_CERT)], host)
    assert "does not lead" in holds([record(2, 1, 0, issuer)], chain(EXPIRED)[:sent])
    assert holds([record(2, 1, 1, issuer)], host) == "DANE: the certificate matches no TLSA record"
    for nonsense in (b"\0", data(issuer, 0, 0), KEY_FOR_AGREEMENT):
        assert holds([Tlsa(2, 1, 0, nonsense)], host).startswith("DANE: the certificate ")


def test_an_issuer_that_another_issuer_gave_dates_counts_beyond_them() -> None:
    """As OpenSSL takes it; a root that is over, and whoever stands between issuer and host, do not."""
    key, days = ec.generate_private_key(ec.SECP256R1()), datetime.timedelta(days=1)
    usual = x509.CertificateBuilder().public_key(key.public_key()).serial_number(7)

    def made(name: str, issuer: str, until: int, *, ca: bool = True) -> x509.Certificate:
        found = usual.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        found = found.issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        found = found.not_valid_before(NOW - 9 * days).not_valid_after(NOW + until * days)
        found = found.add_extension(x509.BasicConstraints(ca=ca, path_length=0 if name == "crossed" else None), critical=True)
        found = found.add_extension(x509.SubjectAlternativeName([x509.DNSName("mx.example.org")]), critical=False)
        return found.sign(key, hashes.SHA256())

    root, crossed, leaf = made("root", "root", -1), made("crossed", "root", -1), made("leaf", "crossed", 9, ca=False)
    for selector, matching in ALL:
        assert holds([record(2, selector, matching, crossed)], [leaf, crossed]) == ""
        assert "does not lead" in holds([record(2, selector, matching, crossed)], [leaf, crossed], "another.example")
    assert holds([record(2, 0, 0, crossed)], [leaf]) == ""
    assert "does not lead" in holds([record(2, 0, 1, root)], [made("leaf", "root", 9, ca=False), root])
    lasting = made("root", "root", 9)
    assert "does not lead" in holds([record(2, 0, 1, lasting)], [leaf, crossed, lasting])
    assert "does not lead" in holds([record(2, 0, 1, crossed)], [made("leaf", "crossed", -1, ca=False), crossed])
    below = made("below", "crossed", 9)
    assert "does not lead" in holds([record(2, 0, 1, crossed)], [made("leaf", "below", 9, ca=False), below, crossed]), (
        "its own limits count"
    )


DIFFIE_HELLMAN = bytes.fromhex("06092a864886f70d010301")  # object identifier
PRIME = bytes.fromhex(
    "00d3184c2d1da947a615bdfe6d0074f1401e8ca7188f7ddbf0110f64dc89d0d1"
    "8f373647088734e186c48afc9eba6b0c6f877517f01f631a8a9a560b7d98212c8f"
)


def der(tag: int, *parts: bytes) -> bytes:
    return bytes([tag, sum(map(len, parts))]) + b"".join(parts)


@pytest.mark.filterwarnings("ignore:Diffie-Hellman")
def test_an_issuer_out_of_its_dates_whose_key_signs_nothing_proves_nothing() -> None:
    key, days = ec.generate_private_key(ec.SECP384R1()), datetime.timedelta(days=1)
    usual = x509.CertificateBuilder().public_key(key.public_key()).serial_number(7)
    usual = usual.subject_name(ISSUER_CERT.subject).issuer_name(ROOT_CERT.subject)
    made = usual.not_valid_before(NOW - 9 * days).not_valid_after(NOW - days).sign(key, hashes.SHA256())
    public = der(2, b"\1" * 28)  # as long as the other key
    agrees = der(48, der(48, DIFFIE_HELLMAN, der(48, der(2, PRIME), der(2, b"\2"))), der(3, b"\0", public))
    elliptic = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert len(elliptic) == len(agrees)
    issuer = x509.load_der_x509_certificate(made.public_bytes(Encoding.DER).replace(elliptic, agrees))
    for selector, matching in ALL:
        assert "does not lead" in holds([record(2, selector, matching, issuer)], [chain(LEAF)[0], issuer])


def test_a_host_whose_certificate_has_a_common_name_alone() -> None:
    """As issuers of one's own make them. It has to be the name, and counts for nothing beside other names: RFC 6125 §6.4.4."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ours")])
    usual = x509.CertificateBuilder().issuer_name(name).public_key(key.public_key()).serial_number(7)
    usual = usual.not_valid_before(NOW - datetime.timedelta(days=9)).not_valid_after(NOW + datetime.timedelta(days=9))
    issuer = usual.subject_name(name).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    leaf = usual.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "MX.example.org")]))
    other = leaf.add_extension(x509.SubjectAlternativeName([x509.DNSName("other.test")]), critical=False)
    star = usual.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "*.example.org")]))
    ours, alone, beside, all_of_one_label = (one.sign(key, hashes.SHA256()) for one in (issuer, leaf, other, star))
    records = [record(2, 0, 1, ours)]
    assert holds(records, [alone, ours]) == ""
    assert "does not lead" in holds(records, [alone, ours], "other.test")
    assert "does not lead" in holds(records, [beside, ours])
    assert holds(records, [all_of_one_label, ours]) == ""
    for name in ("mx.other.test", "a.mx.example.org", "example.org"):
        assert "does not lead" in holds(records, [all_of_one_label, ours], name)
    assert "does not lead" in holds([record(2, 0, 1, ISSUER_CERT)], [alone, ours, ISSUER_CERT])


def test_an_issuer_above_in_the_chain_or_whole_in_the_dns() -> None:
    assert holds([record(2, 1, 1, ROOT_CERT)], [*chain(LEAF), ROOT_CERT]) == ""
    assert holds([record(2, 1, 1, ROOT_CERT)], chain(LEAF)) != ""  # the host has to send it: RFC 7672 §3.1.2
    assert holds([record(2, 0, 0, ROOT_CERT)], chain(LEAF)) == ""
    assert holds([record(2, 0, 0, OTHER_CERT)], chain(LEAF)) != ""


def test_an_issuer_in_the_chain_that_issued_nothing() -> None:
    """Whoever has any certificate can put somebody else's issuer beside it."""
    stranger = [load(blob.bytes()) for blob in OTHER.issue_cert("mx.example.org").cert_chain_pems]
    assert "does not lead" in holds([record(2, 0, 1, ISSUER_CERT)], [*stranger, ISSUER_CERT])
    assert holds([record(2, 0, 1, stranger[0])], stranger) != ""


def test_a_certificate_with_a_key_of_an_unknown_kind_proves_nothing_and_is_in_nobodys_way() -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    usual = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
    usual = usual.not_valid_before(NOW - datetime.timedelta(days=9)).not_valid_after(NOW + datetime.timedelta(days=9))
    der = usual.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    p256, sm2 = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a811ccf5501822d")  # object identifiers
    unknown = x509.load_der_x509_certificate(der.replace(p256, sm2))
    assert holds([record(2, 1, 1, ROOT_CERT)], [*chain(LEAF), unknown, ROOT_CERT]) == ""
    assert holds([record(3, 1, 1, chain(LEAF)[0])], [unknown]) == "DANE: the certificate matches no TLSA record"
    assert "does not lead" in holds([record(2, 1, 1, ROOT_CERT)], [unknown, ROOT_CERT])


VERSION_3 = bytes.fromhex("a003020102")
NO_VERSION = chain(LEAF)[0].public_bytes(Encoding.DER).replace(VERSION_3, VERSION_3[:-1] + b"\x20", 1)


@pytest.mark.parametrize("sent", [b"\x30\x00", NO_VERSION])
def test_nor_does_one_that_is_none(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(dane_proof, "chain_of", lambda tls: [sent])
    proof = DaneProof((record(2, 1, 1, ROOT_CERT),), ("mx.example.org",), FakeClock())
    with pytest.raises(NotProven, match="cannot be read"):
        proof(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="x"))
    assert holds([Tlsa(2, 0, 0, sent), record(2, 0, 1, ISSUER_CERT)], [*chain(LEAF), ISSUER_CERT]) == ""


@pytest.mark.parametrize(
    "unusable",
    [Tlsa(0, 0, 1, b"x" * 32), Tlsa(1, 1, 1, b"x" * 32), Tlsa(3, 2, 1, b"x" * 32), Tlsa(3, 1, 3, b"x"), Tlsa(3, 1, 1, b"x" * 31), Tlsa(3, 1, 0, b"")],
)  # fmt: skip
def test_what_nobody_can_use(unusable: Tlsa) -> None:
    assert not unusable.usable
    assert TlsaSet("mx.example.org", (unusable,)).usable == ()


def test_the_strongest_digest_counts() -> None:
    """RFC 7671 §9."""
    leaf = chain(LEAF)[0]
    weak, strong, full = record(3, 1, 1, leaf), record(3, 1, 2, leaf), record(3, 1, 0, leaf)
    issuer = record(2, 1, 1, ISSUER_CERT)
    assert TlsaSet("x", (weak, strong, issuer, full)).usable == (strong, issuer, full)
    assert TlsaSet("x", (weak,)).usable == (weak,)


def test_equal_proofs_may_share_connections() -> None:
    one = DaneProof((record(3, 1, 1, ROOT_CERT),), ("a",), FakeClock())
    assert one == DaneProof((record(3, 1, 1, ROOT_CERT),), ("a",), FakeClock(now=1.0))
    assert hash(one) == hash(DaneProof((record(3, 1, 1, ROOT_CERT),), ("a",), FakeClock(now=1.0)))


@pytest.mark.parametrize(
    ("system", "named", "trusted"),
    [(["127.0.0.53"], [], True), (["127.0.0.1", "::1"], [], True), (["192.0.2.1"], [], False), (["127.0.0.1", "192.0.2.1"], [], False),
     ([], ["192.0.2.1"], True)],
)  # fmt: skip
def test_whose_word_on_dnssec_counts(system: list[str], named: list[str], trusted: bool) -> None:
    hosts = MailHosts(FakeClock(), named)
    if not named:
        hosts.resolver.nameservers = system
    assert hosts.trusted is trusted

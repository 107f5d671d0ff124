"""DANE: whether a mail host keeps to what the DNS says of its certificate.

Invariant: what a host sends beside its own certificate proves nothing by being there: the path from it has to lead through it.

Source: RFC 7672 §3.1 (usages), §3.2 (names); RFC 7671 §5 (what counts of a certificate); RFC 6698 §2.
"""

from __future__ import annotations

import datetime
import hashlib
import ssl
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from sesrelay.seams import Clock
from sesrelay.transport.tls.dane import CERTIFICATE, EE, FULL, SHA256, TA, Tlsa
from sesrelay.transport.tls.security import NotProven

_DAY = datetime.timedelta(days=1)
_ISSUER = x509.BasicConstraints(ca=True, path_length=None)
_DER = 2  # _ssl.ENCODING_DER
_UNREADABLE = (ValueError, x509.InvalidVersion)  # the latter is none of the former; OpenSSL looks at no version
_NO_ISSUERS_KEY = (UnsupportedAlgorithm, TypeError)  # the latter: of a kind that certificates are not made for here


@dataclass(frozen=True, slots=True)
class DaneProof:
    """Holds a handshake against the records. `names`: what the certificate of a usage 2 host may be made out to."""

    records: tuple[Tlsa, ...]
    names: tuple[str, ...]
    clock: Clock = field(compare=False)

    def __call__(self, tls: ssl.SSLObject) -> None:
        try:
            chain = [x509.load_der_x509_certificate(der) for der in chain_of(tls)]
        except _UNREADABLE as error:
            raise NotProven(f"DANE: the host sent a certificate that cannot be read ({error})") from error
        self.check(chain)

    def check(self, chain: Sequence[x509.Certificate]) -> None:
        """Raises: NotProven. The host's own certificate comes first in `chain`."""
        if any(one.usage == EE and matches(one, chain[0]) for one in self.records):
            return  # neither name nor dates matter: RFC 7672 §3.1.1
        anchors = [one for one in self.records if one.usage == TA]
        why = "the certificate matches no TLSA record"
        for certificate in (*chain[1:], *_published(anchors, chain, self._now)):
            if any(matches(one, certificate) for one in anchors):
                why = self._wrong_with_path(chain, certificate)
                if not why:
                    return
        raise NotProven(f"DANE: {why}")

    @property
    def _now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.clock.wall(), datetime.UTC)

    def _wrong_with_path(self, chain: Sequence[x509.Certificate], anchor: x509.Certificate) -> str:
        # Issuers of one's own making are what usage 2 is for: no rules of the web's.
        named = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
        unnamed = ExtensionPolicy.permit_all()
        now = self._now
        ca = ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
        why = ""
        for name in self.names:
            try:
                builder = PolicyBuilder().store(Store([_whatever_its_dates(anchor, now)])).time(now.replace(tzinfo=None))
                alone = _common_name_alone(chain[0])  # has to do where there is nothing else: RFC 6125 §6.4.4, RFC 7672 §3.2.3
                if alone in (name.lower(), f"*.{name.lower().partition('.')[2]}"):
                    builder.extension_policies(ca_policy=ca, ee_policy=unnamed).build_client_verifier().verify(
                        chain[0], list(chain[1:])
                    )
                else:
                    verifier = builder.extension_policies(ca_policy=ca, ee_policy=named).build_server_verifier(x509.DNSName(name))
                    verifier.verify(chain[0], list(chain[1:]))
            except (VerificationError, ValueError, x509.DuplicateExtension, *_NO_ISSUERS_KEY) as error:
                why = why or f"the certificate does not lead from {' or '.join(self.names)} to the TLSA record's issuer ({error})"
            else:
                return ""
        return why


def _whatever_its_dates(anchor: x509.Certificate, now: datetime.datetime) -> x509.Certificate:
    """Return an issuer that is out of its dates as one that is not, unless it made them itself. Raises: ValueError and the like.

    As OpenSSL takes it: an anchor is a name and a key (RFC 5280 §6.1.1 d), and the rest is the word of who issued it.
    """
    if anchor.subject == anchor.issuer or anchor.not_valid_before_utc <= now <= anchor.not_valid_after_utc:
        return anchor
    return _anchor(anchor.subject, anchor.public_key(), now, [(one.value, one.critical) for one in anchor.extensions])


def _anchor(
    name: x509.Name, key: CertificatePublicKeyTypes, now: datetime.datetime, extensions: Iterable[tuple[x509.ExtensionType, bool]]
) -> x509.Certificate:
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key)
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - _DAY).not_valid_after(now + _DAY)
    for value, critical in extensions:
        made = made.add_extension(value, critical)
    return made.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())  # nobody looks at the signature of an anchor


def _common_name_alone(certificate: x509.Certificate) -> str | None:
    """Return the common name of a certificate that has no other names, in lower case."""
    try:
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(found[-1].value).lower() if found else None
    return None


def matches(record: Tlsa, certificate: x509.Certificate) -> bool:
    """Tell whether a record is about this certificate, or about its key."""
    if record.selector == CERTIFICATE:
        found = certificate.public_bytes(Encoding.DER)
    else:
        try:
            found = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except (ValueError, UnsupportedAlgorithm):  # of a kind that is not known here, as hosts may send beside others
            return False
    if record.matching != FULL:
        found = (hashlib.sha256 if record.matching == SHA256 else hashlib.sha512)(found).digest()
    return found == record.data


def _published(anchors: Sequence[Tlsa], chain: Sequence[x509.Certificate], now: datetime.datetime) -> list[x509.Certificate]:
    """Return the issuers that stand whole in the DNS, which the host may leave out; of a key alone, under each name asked for."""
    found: list[x509.Certificate] = []
    for one in anchors:
        try:
            if (one.selector, one.matching) == (CERTIFICATE, FULL):
                found.append(x509.load_der_x509_certificate(one.data))
            elif one.matching == FULL:  # RFC 7671 §5.2.3
                key = cast("CertificatePublicKeyTypes", load_der_public_key(one.data))
                names = dict.fromkeys(certificate.issuer for certificate in chain)
                found += [_anchor(name, key, now, [(_ISSUER, True)]) for name in names]
        except (*_UNREADABLE, *_NO_ISSUERS_KEY):
            continue
    return found


def chain_of(tls: ssl.SSLObject) -> list[bytes]:
    """Return the certificates that the host sent, its own first, in DER."""
    if sys.version_info >= (3, 13):
        return list(tls.get_unverified_chain())
    else:  # noqa: RET505  # a branch of its own, which mypy leaves out where it knows the function
        # Public from Python 3.13 on; there since 3.10.
        sent = tls._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
        return [certificate.public_bytes(_DER) for certificate in sent or ()]

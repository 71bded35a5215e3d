"""Keys, requests and certificates of identities, and the authority that signs them. All of it as PEM text.

In:        identities, times.
Out:       PEM text, and what stands in it.
Elsewhere: issuing.py keeps the authority; keyring.py keeps keys, which never leave their node.

Source: RFC 5280; the X.509 SVID specification of SPIFFE (one URI name, no authority, both uses of TLS).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.auth import spiffe

AUTHORITY_LIFETIME: Final = timedelta(days=3650)
SKEW: Final = timedelta(minutes=1)
"""Certificates hold already this long ago: clocks of nodes differ."""


class BadCertificate(ValueError):
    """Text that is not what it should be; says why, in one line."""


def new_key() -> str:
    """A private key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def new_request(key: str, identity: int) -> str:
    """A request to certify that the holder of a key is an identity."""
    private = _private(key)
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(str(identity)))
    return builder.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@dataclass(frozen=True, slots=True)
class Certificate:
    """What stands in an identity's certificate."""

    pem: str
    identity: int
    issued_s: float
    """Seconds since 1970."""
    ends_s: float
    public_key: bytes

    @classmethod
    def parse(cls, pem: str) -> Self:
        """Raises: BadCertificate."""
        return cls._of(_certificate(pem))

    @classmethod
    def parse_der(cls, raw: bytes) -> Self:
        """The same, as TLS shows a peer's. Raises: BadCertificate."""
        try:
            return cls._of(x509.load_der_x509_certificate(raw))
        except ValueError as error:
            raise BadCertificate(f"not a certificate: {error}") from None

    @classmethod
    def _of(cls, found: x509.Certificate) -> Self:
        try:
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            raise BadCertificate("the certificate names nobody") from None
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        identity = spiffe.identity_of_uri(uris[0]) if len(uris) == 1 else None
        if identity is None:
            raise BadCertificate(f"the certificate is not that of an identity: {', '.join(uris) or 'it has no URI'}")
        begins, ends = _validity(found)
        pem = found.public_bytes(Encoding.PEM).decode()
        return cls(pem, identity, (begins + SKEW).timestamp(), ends.timestamp(), _raw(found.public_key()))

    def fits(self, key: str) -> bool:
        """Whether it is about this private key."""
        return self.public_key == _raw(_private(key).public_key())


class Authority:
    """Signs certificates of identities. Who holds its PEM text can be anybody."""

    def __init__(self, pem: str) -> None:
        """`pem` has its key and its certificate. Raises: BadCertificate."""
        self._key = _private(pem)
        self._certificate = _certificate(pem)
        self.pem = pem
        self.trust = self._certificate.public_bytes(Encoding.PEM).decode()
        """What others have to know to believe it."""
        if _raw(self._certificate.public_key()) != _raw(self._key.public_key()):
            raise BadCertificate("key and certificate of the authority do not belong together")

    @classmethod
    def create(cls, now: datetime) -> Self:
        """A new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Flowscope mesh authority")
        public = key.public_key()
        identifier = x509.SubjectKeyIdentifier.from_public_key(public)
        builder = (
            _builder(name, name, public, now, AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(identifier, critical=False)
        )
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return cls((secret + builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)).decode())

    def sign(self, request: str, identity: int, now: datetime, lifetime: timedelta) -> str:
        """A certificate for whoever holds the request's key; what else the request says does not count.

        Raises: BadCertificate when it is no request, or not signed by that key.
        """
        public = _requested_key(request)
        own = x509.SubjectKeyIdentifier.from_public_key(self._certificate.public_key())
        uri = x509.UniformResourceIdentifier(spiffe.uri_of(identity))
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            _builder(_name(str(identity)), self._certificate.subject, public, now, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def has_signed(self, certificate: str, request: str) -> bool:
        """Whether a certificate is ours and about the request's key."""
        try:
            certified, requested = _certificate(certificate).public_key(), _requested_key(request)
            return _raw(certified) == _raw(requested) and is_signed_by(certificate, self.trust)
        except BadCertificate:
            return False


def is_signed_by(certificate: str, trust: str) -> bool:
    """Whether the authority of that certificate has signed this one."""
    try:
        found, authority = _certificate(certificate), _certificate(trust)
        public, algorithm = authority.public_key(), found.signature_hash_algorithm
        if not isinstance(public, ec.EllipticCurvePublicKey) or algorithm is None:
            return False
        public.verify(found.signature, found.tbs_certificate_bytes, ec.ECDSA(algorithm))
    except (BadCertificate, InvalidSignature):
        return False
    return True


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + lifetime)
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _validity(found: x509.Certificate) -> tuple[datetime, datetime]:
    # The names without `_utc` warn from version 42 of the library on; those with it came then.
    begins, ends = (getattr(found, f"not_valid_{word}_utc", None) for word in ("before", "after"))
    if begins is not None and ends is not None:
        return begins, ends
    return found.not_valid_before.replace(tzinfo=UTC), found.not_valid_after.replace(tzinfo=UTC)


def _certificate(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise BadCertificate(f"not a certificate: {error}") from None


def _private(pem: str) -> ec.EllipticCurvePrivateKey:
    try:
        found = load_pem_private_key(pem.encode(), None)
    except (TypeError, ValueError) as error:
        raise BadCertificate(f"not a private key: {error}") from None
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise BadCertificate("the private key is of another kind than ours")
    return found


def _requested_key(pem: str) -> ec.EllipticCurvePublicKey:
    try:
        found = x509.load_pem_x509_csr(pem.encode())
    except ValueError as error:
        raise BadCertificate(f"not a request: {error}") from None
    public = found.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise BadCertificate("the request is about a key of another kind than ours")
    if not found.is_signature_valid:
        raise BadCertificate("whoever made the request does not have its key")
    return public


def _raw(public: object) -> bytes:
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise BadCertificate("the certificate is about a key of another kind than ours")
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

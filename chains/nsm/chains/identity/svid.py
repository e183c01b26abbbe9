"""An X.509-SVID: a certificate chain, its key, and the SPIFFE ID that it proves."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from nsm.chains.core import Refused

_SPIFFE_ID = re.compile(r"spiffe://(?P<domain>[a-z0-9._-]{1,255})(?P<path>(/[A-Za-z0-9._-]+)*)")
_MAX_LENGTH = 2048


@dataclass(frozen=True)
class Svid:
    """An SVID and its key. `chain` is the leaf and its intermediates."""

    spiffe_id: str
    chain: tuple[x509.Certificate, ...]
    key: EllipticCurvePrivateKey

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate with our SPIFFE ID."""
        return self.chain[0]

    @property
    def expires(self) -> float:
        """When the leaf expires, in seconds since the epoch."""
        return self.leaf.not_valid_after_utc.timestamp()

    def pem(self) -> bytes:
        """The chain and the key, as PEM: a secret."""
        chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)
        return chain + self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @classmethod
    def from_der(cls, chain: bytes, key: bytes) -> Svid:
        """From the form of the Workload API: concatenated certificates, and the key as PKCS#8.

        Raises ValueError if key and certificate do not match or the key is not ECDSA, `Refused` without a SPIFFE ID.
        """
        certificates = split_certificates(chain)
        try:
            private = load_der_private_key(key, password=None)
        except (TypeError, UnsupportedAlgorithm) as error:  # encrypted, or of an unknown kind
            raise ValueError(f"the SVID's key cannot be used: {error}") from None
        if not isinstance(private, EllipticCurvePrivateKey):
            raise ValueError("the SVID's key is not ECDSA; tokens of the mesh are ES256, so issue P-256 keys")
        if not certificates or certificates[0].public_key() != private.public_key():
            raise ValueError("the SVID's key does not belong to its certificate")
        return cls(spiffe_id_of(certificates[0]), tuple(certificates), private)


def split_certificates(der: bytes) -> list[x509.Certificate]:
    """The certificates of a concatenation of DER. Raises ValueError."""
    certificates = []
    while der:
        size = _der_size(der)
        certificates.append(x509.load_der_x509_certificate(der[:size]))
        der = der[size:]
    return certificates


def _der_size(der: bytes) -> int:
    """The size of the first ASN.1 value in bytes, including its header (X.690 8.1.3)."""
    if len(der) < 2:
        raise ValueError("the certificates are truncated")
    first = der[1]
    if first < 0x80:
        return 2 + first
    count = first & 0x7F
    return 2 + count + int.from_bytes(der[2 : 2 + count], "big")


def spiffe_id_of(certificate: x509.Certificate) -> str:
    """The SPIFFE ID of a leaf: its only URI name (X.509-SVID 2). Raises `Refused`."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise Refused("the peer's certificate contains no SPIFFE ID") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise Refused(f"the peer's certificate has {len(uris)} URI names; an SVID has exactly one")
    trust_domain_of(uris[0])
    return uris[0]


def trust_domain_of(spiffe_id: str) -> str:
    """The trust domain of a SPIFFE ID. Raises `Refused` if it is not one (SPIFFE-ID 2)."""
    match = _SPIFFE_ID.fullmatch(spiffe_id)
    dots = spiffe_id.rpartition("spiffe://")[2].split("/")[1:]
    if match is None or len(spiffe_id) > _MAX_LENGTH or any(part in {".", ".."} for part in dots):
        raise Refused(f"{spiffe_id!r} is not a SPIFFE ID such as spiffe://example.org/workload")
    return match["domain"]

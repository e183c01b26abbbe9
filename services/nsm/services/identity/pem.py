"""An authority as PEM: its key and its certificate."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from nsm.chains.identity import Authority


def key_of(authority: Authority) -> bytes:
    """The private key, PKCS#8, not encrypted."""
    return authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate_of(authority: Authority) -> bytes:
    """The certificate."""
    return authority.certificate.public_bytes(Encoding.PEM)


def authority_from(key: bytes, certificate: bytes, trust_domain: str) -> Authority:
    """The authority of a key and a certificate, which may be the same file. Raises ValueError."""
    try:
        private, public = load_pem_private_key(key, None), x509.load_pem_x509_certificate(certificate)
    except (TypeError, UnsupportedAlgorithm) as error:  # the key is encrypted, or of an unknown kind
        raise ValueError(str(error)) from None
    if not isinstance(private, EllipticCurvePrivateKey) or private.public_key() != public.public_key():
        raise ValueError("the key does not belong to the certificate")
    if public.issuer != public.subject or not _is_authority(public):
        raise ValueError("the certificate is not that of a self-signed authority: its SVIDs would not be accepted")
    return Authority(trust_domain, public, private)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False

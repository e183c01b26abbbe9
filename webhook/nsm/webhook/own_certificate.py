"""A self-made certificate authority and certificate for one server."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nsm.chains.identity import certificate_builder

_SKEW = datetime.timedelta(minutes=5)
"""Valid from slightly before now, to allow for clock skew."""


@dataclass(frozen=True)
class OwnCertificate:
    """An authority (PEM), and the certificate that it issued. Its key is discarded after that."""

    authority: str
    pem: bytes
    """The server's certificate and key."""


def issue_certificate(service: str, namespace: str, lifetime: datetime.timedelta) -> OwnCertificate:
    """A certificate for the server ``service.namespace.svc``."""
    now = datetime.datetime.now(datetime.UTC)
    valid = now - _SKEW, now + lifetime
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name(f"networkservicemesh.{service}-ca")
    authority = (
        certificate_builder(issuer, issuer, authority_key.public_key(), *valid, is_authority=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.DNSName(name) for name in dns_names(service, namespace)]
    leaf = (
        certificate_builder(_name(names[-1].value), issuer, key.public_key(), *valid, is_authority=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return OwnCertificate(authority.public_bytes(Encoding.PEM).decode(), leaf.public_bytes(Encoding.PEM) + secret)


def dns_names(service: str, namespace: str) -> list[str]:
    """The DNS names of a service; the API server uses the last one."""
    return [f"{service}.{namespace}", f"{service}.{namespace}.svc"]


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])

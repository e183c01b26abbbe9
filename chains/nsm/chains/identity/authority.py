"""A certificate authority for one trust domain; `nsm identity` and the tests issue SVIDs with it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .certificate_builder import certificate_builder
from .svid import Svid, trust_domain_of

_SKEW = datetime.timedelta(minutes=1)
"""SVIDs are valid from slightly before now, to allow for clock skew."""


@dataclass(frozen=True)
class Authority:
    """Issues SVIDs of `trust_domain`."""

    trust_domain: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, trust_domain: str, *, lifetime: datetime.timedelta = datetime.timedelta(days=3650)) -> Authority:
        """A new self-signed authority. Raises `Refused` if `trust_domain` is not a valid name."""
        trust_domain_of(f"spiffe://{trust_domain}")
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, trust_domain)])
        builder = _builder(name, name, key.public_key(), lifetime, is_authority=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_uri(f"spiffe://{trust_domain}"), critical=False)
        return cls(trust_domain, builder.sign(key, hashes.SHA256()), key)

    def issue(self, spiffe_id: str, *, lifetime: datetime.timedelta = datetime.timedelta(hours=1)) -> Svid:
        """A new key and a leaf certificate for `spiffe_id`. Raises `Refused` if that is not a SPIFFE ID."""
        key = ec.generate_private_key(ec.SECP256R1())
        return Svid(spiffe_id, (self.certify(spiffe_id, key.public_key(), lifetime=lifetime),), key)

    def certify(
        self, spiffe_id: str, key: ec.EllipticCurvePublicKey, *, lifetime: datetime.timedelta
    ) -> x509.Certificate:
        """A leaf certificate for `spiffe_id` and another's `key`. Raises `Refused` if that is not a SPIFFE ID."""
        trust_domain_of(spiffe_id)
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Network Service Mesh")])
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(name, self.certificate.subject, key, lifetime, is_authority=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        builder = builder.add_extension(_uri(spiffe_id), critical=False)
        builder = builder.add_extension(self._key_identifier(), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """The key identifier from our certificate, however it was computed: verifiers compare it (RFC 5280 4.2.1.1)."""
        try:
            called = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(called)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    lifetime: datetime.timedelta,
    *,
    is_authority: bool,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return certificate_builder(subject, issuer, key, now - _SKEW, now + lifetime, is_authority=is_authority)


def _uri(uri: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])

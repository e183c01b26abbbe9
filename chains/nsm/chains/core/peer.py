"""The identity of the other end of a connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey


@dataclass(frozen=True)
class Peer:
    """A verified peer: its SPIFFE ID and the leaf certificate (DER) that it showed in the TLS handshake.

    `seen` is the SVID of our own that it received in return, if any: our tokens for it are signed with that key,
    even if we have a newer one by now. `address` is the IP address that it connected from, empty on a unix socket,
    and None if it did not connect over a socket. `is_near` is true for a peer on a unix socket in our own network
    namespace, so that addresses mean the same to both.
    """

    spiffe_id: str
    certificate_der: bytes
    seen: Any = field(default=None, compare=False, repr=False)
    address: str | None = field(default=None, compare=False, repr=False)
    is_near: bool = field(default=False, compare=False, repr=False)

    @cached_property
    def certificate(self) -> x509.Certificate:
        """The leaf certificate, parsed."""
        return x509.load_der_x509_certificate(self.certificate_der)

    @cached_property
    def expires(self) -> float:
        """When the certificate ends, in seconds since the epoch: nothing that the peer may do outlives it."""
        return self.certificate.not_valid_after_utc.timestamp()

    @cached_property
    def public_key(self) -> EllipticCurvePublicKey:
        """The key that the peer's tokens must be signed with (ECDSA P-256)."""
        return cast(EllipticCurvePublicKey, self.certificate.public_key())

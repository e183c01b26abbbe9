"""The RSA key of a node's IKEv2, and the certificates by which two nodes know each other's.

A certificate is signed by itself, and stands for its public key: nodes exchange it in the mechanism, through their
managers. There is one for each wire, since VPP tells wires apart by it; the same wire always gets the same.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from nsm.apis.connection import Mechanism
from nsm.chains.core import InvalidRequest

_BITS, _MOST_TEXT = 2048, 8192
_ID_LENGTH = 64
_FROM, _TO = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
"""Nobody checks the time, and the certificate of a wire must not depend on when it was made."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate as the mechanism has it: base64 of DER."""

    text: str

    @property
    def identity(self) -> bytes:
        """By which IKEv2 names its owner: both ends derive it from the certificate."""
        return self.text[:_ID_LENGTH].encode()

    @property
    def pem(self) -> bytes:
        """As a file."""
        found = x509.load_der_x509_certificate(base64.b64decode(self.text))
        return found.public_bytes(serialization.Encoding.PEM)


class NodeKey:
    """The key of this node, kept in `path`. It is made ahead: that takes a second, and no request waits for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = asyncio.ensure_future(asyncio.to_thread(_read_or_make, path))

    async def certificate(self, role: str, connection_id: str) -> Certificate:
        """The certificate of one end (``client`` or ``server``) of a connection's wire."""
        return await asyncio.to_thread(_certificate, await asyncio.shield(self._key), role, connection_id)

    async def aclose(self) -> None:
        """Wait for the key: a thread cannot be stopped."""
        with contextlib.suppress(OSError, ValueError):
            await self._key


def peer_certificate(mechanism: Mechanism, parameter: str) -> Certificate:
    """The certificate in a parameter. Raises `InvalidRequest` if it has no RSA key of 2048 bits or more."""
    text = mechanism.parameters.get(parameter, "")
    try:
        if len(text) > _MOST_TEXT:
            raise ValueError("too long")
        found = x509.load_der_x509_certificate(base64.b64decode(text, validate=True)).public_key()
    except ValueError:
        found = None
    if not isinstance(found, rsa.RSAPublicKey) or found.key_size < _BITS:
        raise InvalidRequest(
            f"{parameter} of the {mechanism.type} mechanism is not a certificate with an RSA key of {_BITS} bits or "
            f"more (DER in base64): {text[:44]!r}"
        )
    return Certificate(text)


def _read_or_make(path: Path) -> rsa.RSAPrivateKey:
    with contextlib.suppress(OSError, ValueError):
        known = serialization.load_pem_private_key(path.read_bytes(), None)
        if isinstance(known, rsa.RSAPrivateKey):
            return known
    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    new.replace(path)
    return key


def _certificate(key: rsa.RSAPrivateKey, role: str, connection_id: str) -> Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)])
    serial = int.from_bytes(hashlib.sha256(f"{role} {connection_id}".encode()).digest()[:16], "big") >> 1 | 1
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = builder.serial_number(serial).not_valid_before(_FROM).not_valid_after(_TO).sign(key, hashes.SHA256())
    return Certificate(base64.b64encode(made.public_bytes(serialization.Encoding.DER)).decode())

"""A trust domain's bundle as a document: a JWK Set, as SPIFFE defines it (SPIFFE Trust Domain and Bundle 4)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.chains.reading import read_json

USE = "x509-svid"
LARGEST = 1 << 20
"""Bytes of a document that is read."""
_MOST_KEYS = 256
_CURVES = {"secp256r1": ("P-256", 32), "secp384r1": ("P-384", 48), "secp521r1": ("P-521", 66)}


@dataclass(frozen=True)
class Bundle:
    """The certificates of a trust domain's authorities, and after how many seconds to look again; 0: not said."""

    certificates: tuple[x509.Certificate, ...]
    refresh_hint: int = 0


def to_document(certificates: Sequence[x509.Certificate], *, sequence: int, refresh_hint: int) -> str:
    """The JSON document."""
    keys = [_key(certificate) for certificate in certificates]
    return json.dumps({"keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": refresh_hint}, indent=1) + "\n"


def from_document(text: str) -> Bundle:
    """Read a document; keys for other uses than X.509-SVIDs are ignored. Raises ValueError that says what is wrong."""
    document = read_json(text)
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or not isinstance(keys, list) or len(keys) > _MOST_KEYS:
        raise ValueError("it is not a SPIFFE bundle: expected a JSON object with a list 'keys'")
    hint = document.get("spiffe_refresh_hint", 0)
    if not isinstance(hint, int) or hint < 0:
        raise ValueError("spiffe_refresh_hint is not a number of seconds")
    wanted = [key for key in keys if isinstance(key, Mapping) and key.get("use") == USE]
    return Bundle(tuple(map(_certificate, wanted)), hint)


def from_file(content: bytes) -> Bundle:
    """Read a document, or PEM. Raises ValueError."""
    if content.lstrip().startswith(b"{"):
        return from_document(content.decode("utf-8"))
    return Bundle(tuple(x509.load_pem_x509_certificates(content)))


def _key(certificate: x509.Certificate) -> dict[str, Any]:
    der = certificate.public_bytes(Encoding.DER)
    return {"use": USE, **_parameters(certificate), "x5c": [base64.b64encode(der).decode()]}


def _parameters(certificate: x509.Certificate) -> dict[str, str]:
    """The public key as RFC 7518 6 has it."""
    key = certificate.public_key()
    if isinstance(key, EllipticCurvePublicKey):
        curve, size = _CURVES[key.curve.name]
        numbers = key.public_numbers()
        return {"kty": "EC", "crv": curve, "x": _text(numbers.x, size), "y": _text(numbers.y, size)}
    raise ValueError("authorities have elliptic curve keys")


def _text(number: int, size: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(size, "big")).rstrip(b"=").decode()


def _certificate(key: Mapping[str, Any]) -> x509.Certificate:
    chain = key.get("x5c")
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        raise ValueError("a key for X.509-SVIDs has no certificate: expected a list 'x5c' with one")
    try:
        return x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"a certificate cannot be read: {error}") from None

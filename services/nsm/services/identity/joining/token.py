"""The one-time token with which a host joins a domain: one line that an operator copies."""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.chains.config.address import Address, parse_address
from nsm.chains.core import InvalidRequest

NODES, ISSUER = "/node/", "/join"
"""The path of joined nodes' SPIFFE IDs, and that of the server's, in whose name no workload may act."""
NODE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
_SECRET = 16
"""Bytes of a token's secret."""
_TOKEN = re.compile(
    r"join://(?P<node>[^:@/#]+):(?P<secret>[A-Za-z0-9_-]{22})@(?P<where>[^@/#]+)/(?P<domain>[a-z0-9._-]{1,255})"
    r"#(?P<fingerprint>[A-Za-z0-9_-]{43})"
)


@dataclass(frozen=True)
class JoinToken:
    """Who joins which domain, where, and by which authority its server is verified."""

    node: str
    secret: str = field(repr=False)
    address: Address
    trust_domain: str
    fingerprint: str

    def __str__(self) -> str:
        """The line to copy: a secret."""
        where = str(self.address).removeprefix("tcp://")
        return f"join://{self.node}:{self.secret}@{where}/{self.trust_domain}#{self.fingerprint}"

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Raises `InvalidRequest`, without the text: it may be a secret."""
        match = _TOKEN.fullmatch(text.strip())
        if match is None or not NODE_NAME.fullmatch(match["node"]):
            raise InvalidRequest(
                "this is not a join token; expected the whole line join://NODE:SECRET@HOST:PORT/DOMAIN#FINGERPRINT "
                "that `nsm identity token NODE` printed"
            )
        address = parse_address(match["where"])
        return cls(match["node"], match["secret"], address, match["domain"], match["fingerprint"])


def new_secret() -> str:
    """A new secret, 128 random bits."""
    return secrets.token_urlsafe(_SECRET)


def digest(secret: str) -> str:
    """What is stored of a secret."""
    return sha256(secret.encode()).hexdigest()


def fingerprint(authority: x509.Certificate) -> str:
    """The SHA-256 of an authority's certificate, base64url without padding."""
    return urlsafe_b64encode(sha256(authority.public_bytes(Encoding.DER)).digest()).rstrip(b"=").decode()


def node_id(trust_domain: str, node: str) -> str:
    """The SPIFFE ID of a joined node."""
    return f"spiffe://{trust_domain}{NODES}{node}"


def issuer_id(trust_domain: str) -> str:
    """The SPIFFE ID of the server that nodes join at."""
    return f"spiffe://{trust_domain}{ISSUER}"


def check_node_name(name: str) -> str:
    """`name`, if a node can have it. Raises `InvalidRequest`."""
    if not NODE_NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:80]!r} cannot be a node's name; expected up to 63 letters, digits, dots and dashes, such as edge-1"
        )
    return name

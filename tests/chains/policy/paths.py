"""Paths of tokens, as policies are asked about them."""

import time

import jwt
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.apis.connection import Path, PathSegment
from nsm.chains.core import Peer
from nsm.chains.identity import Authority
from nsm.chains.testing import identity_of

AUTHORITY = Authority.create("test.mesh")
CLIENT, MANAGER, OTHER = (identity_of(AUTHORITY, name) for name in ("client", "manager", "other"))


def peer(identity):
    return Peer(identity.spiffe_id, identity.svid.leaf.public_bytes(Encoding.DER))


def signed(identity, audience=MANAGER, **claims):
    claims = {"sub": identity.spiffe_id, "aud": [audience.spiffe_id], "exp": int(time.time()) + 600, **claims}
    return jwt.encode(claims, identity.svid.key, algorithm="ES256")


def path_of(tokens, index=1, name="client"):
    return Path(
        index=index, path_segments=[PathSegment(name=name, id=f"id-{i}", token=each) for i, each in enumerate(tokens)]
    )

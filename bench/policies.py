"""What the native policies take of a request whose path has five segments, before anything is done for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

from cryptography.hazmat.primitives.serialization import Encoding

from nsm.apis.connection import Connection, Path, PathSegment
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Call, End, Peer, Store
from nsm.chains.elements.authorize import Authorize
from nsm.chains.identity import Authority, Identity
from nsm.chains.policy import SERVER_MASKS, IdPatterns, Trust
from nsm.chains.testing.identity import identity_of

SEGMENTS, REQUESTS = ("client", "nsmgr-1", "forwarder-1", "nsmgr-2", "forwarder-2"), 2_000
TRUST = Trust(intermediaries=IdPatterns(["spiffe://bench.mesh/nsmgr-*", "spiffe://bench.mesh/forwarder-*"]))


def measure() -> list[tuple[str, list[float], str]]:
    """Milliseconds of the processor: for requests with new tokens, and for those of refreshes."""
    authority = Authority.create("bench.mesh")
    identities = [identity_of(authority, name) for name in (*SEGMENTS, "endpoint")]
    return asyncio.run(_measured(identities))


async def _measured(identities: Sequence[Identity]) -> list[tuple[str, list[float], str]]:
    element = Authorize(SERVER_MASKS, TRUST)
    known = _tokens(identities)
    await _milliseconds(element, _call(identities, known))
    seen = [await _milliseconds(element, _call(identities, known)) for _ in range(REQUESTS)]
    new = [await _milliseconds(element, _call(identities, _tokens(identities))) for _ in range(REQUESTS // 10)]
    return [("policy_ms", new, "ms"), ("policy_refresh_ms", seen, "ms")]


def _tokens(identities: Sequence[Identity]) -> list[str]:
    """A new token of each but the last, for the one that follows: a signature is never the same twice."""
    following = identities[1:]
    return [
        one._sign(one.svid, other.spiffe_id, time.time()).token.token
        for one, other in zip(identities, following, strict=False)
    ]


def _call(identities: Sequence[Identity], tokens: Sequence[str]) -> Call:
    own = identities[-1].token(audience=identities[-2].spiffe_id).token
    names = [identity.spiffe_id.rpartition("/")[2] for identity in identities]
    segments = [PathSegment(name=name, id=name, token=token) for name, token in zip(names, [*tokens, own], strict=True)]
    path = Path(index=len(segments) - 1, path_segments=segments)
    call = Call(NetworkServiceRequest(connection=Connection(id="c", network_service="s", path=path)))
    call.peer, call.store = _peer(identities[-2]), Store("c", cast(Any, None))
    return call


def _peer(identity: Identity) -> Peer:
    return Peer(identity.spiffe_id, identity.svid.leaf.public_bytes(Encoding.DER))


async def _milliseconds(element: Authorize, call: Call) -> float:
    begin = time.process_time()
    await element.request(call, End())
    return (time.process_time() - begin) * 1000

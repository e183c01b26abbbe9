"""The identity of this process: whether the SPIFFE Workload API issues one, its trust domain and expiry."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping

from .model import Finding, error, ok, warning

DEFAULT = "unix:///run/spire/sockets/agent.sock"
_PATIENCE = 3.0


def identity(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Request an identity."""
    url = environment.get("SPIFFE_ENDPOINT_SOCKET")
    path = (url or DEFAULT).removeprefix("unix://")
    if url is None and not os.path.exists(path):
        hint = "set SPIFFE_ENDPOINT_SOCKET (SPIRE's agent, or `nsm identity`); the local mesh has its own"
        yield warning("identity", f"SPIFFE_ENDPOINT_SOCKET is not set, and there is nothing at {path}", hint)
        return
    if path.startswith("/") and not os.path.exists(path):
        hint = "start SPIRE's agent or `nsm identity`, or set SPIFFE_ENDPOINT_SOCKET to its socket"
        yield error("identity", f"there is nothing at SPIFFE_ENDPOINT_SOCKET={url}", hint)
        return
    yield from _asked(url or DEFAULT)


def _asked(url: str) -> Iterator[Finding]:
    # The rest loads gRPC and certificates, which is needed only with a socket.
    from nsm.chains import logs  # noqa: PLC0415
    from nsm.chains.core import MeshError  # noqa: PLC0415

    logs.set_up("check", "CRITICAL")
    try:
        spiffe_id, domains, expires = asyncio.run(_ask(url))
    except TimeoutError:
        hint = "register this process: SPIRE needs an entry with its selectors, `nsm identity` one in NSM_ENTRIES"
        yield error("identity", f"{url} issued this process no identity within {_PATIENCE:.0f} s", hint)
        return
    except MeshError as failure:
        yield error("identity", str(failure), "write unix:///path or tcp://ip:port")
        return
    own, *others = domains
    federated = f", federated with {', '.join(others)}" if others else ""
    yield ok("identity", f"{spiffe_id} (trust domain {own}{federated})")
    left = expires - time.time()
    if left > 0:
        yield ok("expiry", f"valid for another {_span(left)}, rotated before that")
    else:
        hint = "the Workload API does not rotate it, or the clocks of this machine and of its issuer differ"
        yield error("expiry", f"it expired {_span(-left)} ago", hint)


async def _ask(url: str) -> tuple[str, list[str], float]:
    """SPIFFE ID, trust domains with our own first, and the expiry. Raises TimeoutError."""
    from nsm.chains.identity.source import identity_from  # noqa: PLC0415
    from nsm.chains.identity.svid import trust_domain_of  # noqa: PLC0415

    async with asyncio.timeout(_PATIENCE), identity_from(url, token_lifetime=600) as found:
        own = trust_domain_of(found.spiffe_id)
        return found.spiffe_id, [own, *sorted(set(found.bundles) - {own})], found.svid.expires


def _span(seconds: float) -> str:
    """A human-readable duration."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"

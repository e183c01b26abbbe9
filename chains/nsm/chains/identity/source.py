"""The source of identities: the SPIFFE Workload API, watched for as long as the process lives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from cryptography import x509
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from nsm.apis import codec
from nsm.apis.workload import SpiffeWorkloadApiStub, X509SvidRequest, X509SvidResponse
from nsm.chains.core import Backoff, InvalidRequest, Refused, Tasks
from nsm.chains.logs import log
from nsm.chains.model.denied import denied

from .identity import Identity
from .svid import Svid, split_certificates, trust_domain_of

SECURITY_HEADER = {"workload.spiffe.io": "true"}
"""Required metadata, which shows that the caller is not a browser (SPIFFE Workload Endpoint 3)."""
_LOOK, _LONGEST_LOOK = 1.0, 60.0
"""Seconds between two looks whether our SVID has expired: the clock may be set meanwhile."""
_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.1, 5.0, 1.25
"""Short pauses: SPIRE learns of a new pod seconds after it started, and nothing can start before."""


@asynccontextmanager
async def identity_from(
    workload_api: str, *, token_lifetime: float, tell: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Identity]:
    """The identity that the Workload API at `workload_api` issues to this process, kept up to date.

    Waits until there is one, and reports the reason in the log and to `tell`. Raises `InvalidRequest` if
    `workload_api` is not the URL of a socket.
    """
    channel = _channel(workload_api)
    identity = Identity(token_lifetime=token_lifetime)
    ready = asyncio.Event()
    try:
        async with Tasks("identity") as tasks:
            tasks.spawn(tell_of_the_end(identity, workload_api, ready), name="end of the SVID")
            tasks.spawn(_follow(channel, workload_api, identity, ready, tell), name="Workload API")
            await ready.wait()
            yield identity
    finally:
        channel.close()


def _channel(url: str) -> Channel:
    scheme, _, rest = url.partition("://")
    if scheme == "unix" and rest.startswith("/"):
        return Channel(path=rest, codec=codec.Codec())
    host, _, port = rest.rpartition(":")
    if scheme == "tcp" and host and port.isdigit():
        return Channel(host.strip("[]"), int(port), codec=codec.Codec())
    raise InvalidRequest(
        f"SPIFFE_ENDPOINT_SOCKET={url!r} is not the URL of a socket; write unix:///path or tcp://ip:port"
    )


async def _follow(
    channel: Channel, url: str, identity: Identity, ready: asyncio.Event, tell: Callable[[str], None]
) -> None:
    backoff, told = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, factor=_GROWTH), ""
    while True:
        try:
            async for response in SpiffeWorkloadApiStub(channel).fetch_x_509_svid(
                X509SvidRequest(), metadata=SECURITY_HEADER
            ):
                _take(response, identity)
                identity.is_source_away = False
                ready.set()
                told = ""
                backoff.reset()
            reason = "the stream ended"
        except GRPCError as error:
            reason = _reason(error)
        except (OSError, StreamTerminatedError, ValueError, Refused) as error:
            barred = denied(url.removeprefix("unix://")) if isinstance(error, PermissionError) else ""
            reason = barred or str(error) or type(error).__name__
        if reason != told:  # log each reason once, not with every retry
            event = "the Workload API is gone" if ready.is_set() else "no identity from the Workload API"
            log.warning(event, socket=url, reason=reason)
            if not ready.is_set():
                tell(f"{event}: {reason}")
            told = reason
        identity.is_source_away = ready.is_set()
        await asyncio.sleep(backoff.next())


async def tell_of_the_end(identity: Identity, url: str, ready: asyncio.Event) -> None:
    """Say once when our SVID has ended without being renewed by `url`, and what that means."""
    await ready.wait()
    is_told = False
    while True:
        left = identity.svid.expires - time.time()
        if left <= 0 and not is_told:
            log.error(
                "our SVID has expired: nothing new passes until it is renewed, and wires stay as they are",
                spiffe_id=identity.spiffe_id,
                source=url,
            )
        elif left > 0 and is_told:
            log.info("our SVID is renewed", spiffe_id=identity.spiffe_id)
        is_told = left <= 0
        await asyncio.sleep(min(max(left, _LOOK), _LONGEST_LOOK))


def _reason(error: GRPCError) -> str:
    if error.status is Status.PERMISSION_DENIED:
        return f"denied: {error.message}; is there an entry for this process?"
    return f"{error.status.name}: {error.message}"


def _take(response: X509SvidResponse, identity: Identity) -> None:
    """Use the first SVID, which is the default one (SPIFFE Workload API 5.2.1), and all bundles."""
    if not response.svids:
        raise ValueError("the Workload API answered without an SVID")
    first = response.svids[0]
    svid = Svid.from_der(first.x509_svid, first.x509_svid_key)
    bundles: dict[str, list[x509.Certificate]] = {
        _domain(name): split_certificates(der) for name, der in response.federated_bundles.items()
    }
    bundles[trust_domain_of(svid.spiffe_id)] = split_certificates(first.bundle)
    identity.update(svid, bundles)
    log.info("identity", spiffe_id=svid.spiffe_id, expires=svid.leaf.not_valid_after_utc.isoformat())


def _domain(name: str) -> str:
    return name.removeprefix("spiffe://")

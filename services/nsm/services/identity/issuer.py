"""A small issuer of SPIFFE identities for one machine: the Workload API without an agent behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nsm.apis.workload import (
    X509BundlesRequest,
    X509BundlesResponse,
    X509Svid,
    X509SvidRequest,
    X509SvidResponse,
)
from nsm.chains.core import Exhausted, InvalidRequest, Limits
from nsm.chains.identity import Svid
from nsm.chains.logs import log
from nsm.chains.transport import Credentials, Incoming, Methods, Streaming

FETCH_SVID = "/SpiffeWorkloadAPI/FetchX509SVID"
FETCH_BUNDLES = "/SpiffeWorkloadAPI/FetchX509Bundles"

_SAME = 1 / 1000
"""The part of an SVID's lifetime in which it is issued again: 3.6 s of an hour."""


class Source(Protocol):
    """Where SVIDs come from: the authorities of this process, or those of a domain that this node has joined."""

    version: int
    """Counts the changes of the bundle."""

    @property
    def trust_domain(self) -> str:
        """The domain of all that is issued."""
        ...

    @property
    def bundle(self) -> Sequence[x509.Certificate]:
        """The certificates to trust."""
        ...

    async def issue(self, spiffe_id: str, lifetime: float) -> Svid:
        """A new SVID, valid for `lifetime` seconds. Raises `MeshError` if that cannot be had now."""
        ...

    async def changed(self, version: int) -> None:
        """Wait until the bundle differs from `version`."""
        ...


Identify = Callable[[str, Credentials | None], Awaitable[str]]
"""Returns the SPIFFE ID of a caller on a socket; raises `Refused` if it has none."""


class Issuer:
    """Serves the Workload API: an SVID at once, and a new one after half of its lifetime or with a new bundle.

    `federated` has the bundles of other trust domains, which may change: then the authorities are woken. Only callers
    whose SPIFFE IDs `federates` accepts receive them.

    `identify` may be replaced; it is called again before each new SVID. A caller that repeats its request at once gets
    the same SVID, since a new key costs a millisecond of processor time.
    """

    def __init__(
        self,
        authorities: Source,
        identify: Identify,
        *,
        lifetime: float = 3600.0,
        federated: Mapping[str, Sequence[x509.Certificate]] | None = None,
        federates: Callable[[str], bool] = lambda _: True,
        limits: Limits | None = None,
    ) -> None:
        self._authorities, self.identify, self._lifetime = authorities, identify, lifetime
        self._most_streams = (limits or Limits()).identity_streams
        self._streams: Counter[int] = Counter()
        self._recent: dict[str, tuple[float, int, X509SvidResponse]] = {}
        self._federated, self._federates = federated if federated is not None else {}, federates

    def methods(self, socket_path: str) -> Methods:
        """The Workload API for one socket."""

        async def svids(_request: X509SvidRequest, incoming: Incoming) -> AsyncIterator[list[X509SvidResponse]]:
            with self._stream(incoming.credentials):
                while True:
                    spiffe_id = await self._identify(socket_path, incoming)
                    version = self._authorities.version
                    yield [await self._response(spiffe_id)]
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._lifetime / 2):
                            await self._authorities.changed(version)

        async def bundles(_request: X509BundlesRequest, incoming: Incoming) -> AsyncIterator[list[X509BundlesResponse]]:
            with self._stream(incoming.credentials):
                spiffe_id = await self._identify(socket_path, incoming)
                while True:
                    domain, version = self._authorities.trust_domain, self._authorities.version
                    own = {f"spiffe://{domain}": _der(self._authorities.bundle)}
                    yield [X509BundlesResponse(bundles={**own, **self._others(spiffe_id)})]
                    await self._authorities.changed(version)

        return {
            FETCH_SVID: Streaming(X509SvidRequest, svids, limit="workload"),
            FETCH_BUNDLES: Streaming(X509BundlesRequest, bundles, limit="workload"),
        }

    async def _identify(self, socket_path: str, incoming: Incoming) -> str:
        if incoming.metadata.get("workload.spiffe.io") != "true":
            raise InvalidRequest("the metadata workload.spiffe.io: true is missing")
        return await self.identify(socket_path, incoming.credentials)

    @contextlib.contextmanager
    def _stream(self, caller: Credentials | None) -> Iterator[None]:
        """Count a stream of the caller's process, or of its connection if that is not visible. Raises `Exhausted`."""
        process = caller.pid if caller and caller.pid else -id(caller)
        if self._streams[process] >= self._most_streams:
            raise Exhausted(
                f"this process has {self._most_streams} streams open here; it needs one or two, and may have more by "
                "NSM_LIMITS=identity_streams:N"
            )
        self._streams[process] += 1
        try:
            yield
        finally:
            self._streams[process] -= 1
            if not self._streams[process]:
                del self._streams[process]

    async def _response(self, spiffe_id: str) -> X509SvidResponse:
        now, version = asyncio.get_running_loop().time(), self._authorities.version
        made, of_version, response = self._recent.get(spiffe_id, (0.0, -1, None))
        if response is not None and of_version == version and now - made < self._lifetime * _SAME:
            return response
        response = await self._new(spiffe_id)
        self._recent = {who: each for who, each in self._recent.items() if now - each[0] < self._lifetime * _SAME}
        self._recent[spiffe_id] = now, version, response
        return response

    async def _new(self, spiffe_id: str) -> X509SvidResponse:
        svid = await self._authorities.issue(spiffe_id, self._lifetime)
        log.debug("issued", spiffe_id=spiffe_id)
        key = svid.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        bundle = _der(self._authorities.bundle)
        message = X509Svid(spiffe_id=spiffe_id, x509_svid=_der(svid.chain), x509_svid_key=key, bundle=bundle)
        return X509SvidResponse(svids=[message], federated_bundles=self._others(spiffe_id))

    def _others(self, spiffe_id: str) -> dict[str, bytes]:
        if not self._federates(spiffe_id):
            return {}
        return {domain: _der(bundle) for domain, bundle in self._federated.items()}


def _der(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.DER) for certificate in certificates)

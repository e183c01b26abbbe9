"""A small issuer of SPIFFE identities for one machine: the Workload API without an agent behind it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nsm.apis.workload import (
    X509BundlesRequest,
    X509BundlesResponse,
    X509Svid,
    X509SvidRequest,
    X509SvidResponse,
)
from nsm.chains.core import InvalidRequest
from nsm.chains.logs import log
from nsm.chains.transport import Credentials, Incoming, Methods, Streaming

from .authorities import Authorities

FETCH_SVID = "/SpiffeWorkloadAPI/FetchX509SVID"
FETCH_BUNDLES = "/SpiffeWorkloadAPI/FetchX509Bundles"

Identify = Callable[[str, Credentials | None], Awaitable[str]]
"""The SPIFFE ID of who asks on a socket; raises `Refused` if there is none for it."""


class Issuer:
    """Answers the Workload API: an SVID at once, and a new one at half of its life or with a new bundle.

    `identify` may be changed; it is asked again before each new SVID.
    """

    def __init__(
        self,
        authorities: Authorities,
        identify: Identify,
        *,
        lifetime: float = 3600.0,
        federated: Mapping[str, Sequence[x509.Certificate]] | None = None,
    ) -> None:
        self._authorities, self.identify, self._lifetime = authorities, identify, lifetime
        self._federated = {domain: _der(bundle) for domain, bundle in (federated or {}).items()}

    def methods(self, socket_path: str) -> Methods:
        """The Workload API as it is served on one socket."""

        async def svids(_request: X509SvidRequest, incoming: Incoming) -> AsyncIterator[list[X509SvidResponse]]:
            while True:
                spiffe_id = await self._identify(socket_path, incoming)
                version = self._authorities.version
                yield [self._response(spiffe_id)]
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._lifetime / 2):
                        await self._authorities.changed(version)

        async def bundles(_request: X509BundlesRequest, incoming: Incoming) -> AsyncIterator[list[X509BundlesResponse]]:
            await self._identify(socket_path, incoming)
            while True:
                domain, version = self._authorities.signing.trust_domain, self._authorities.version
                own = {f"spiffe://{domain}": _der(self._authorities.bundle)}
                yield [X509BundlesResponse(bundles={**own, **self._federated})]
                await self._authorities.changed(version)

        return {
            FETCH_SVID: Streaming(X509SvidRequest, svids),
            FETCH_BUNDLES: Streaming(X509BundlesRequest, bundles),
        }

    async def _identify(self, socket_path: str, incoming: Incoming) -> str:
        if incoming.metadata.get("workload.spiffe.io") != "true":
            raise InvalidRequest("the metadata workload.spiffe.io: true is missing")
        return await self.identify(socket_path, incoming.credentials)

    def _response(self, spiffe_id: str) -> X509SvidResponse:
        svid = self._authorities.signing.issue(spiffe_id, lifetime=datetime.timedelta(seconds=self._lifetime))
        log.debug("issued", spiffe_id=spiffe_id)
        key = svid.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        bundle = _der(self._authorities.bundle)
        message = X509Svid(spiffe_id=spiffe_id, x509_svid=_der(svid.chain), x509_svid_key=key, bundle=bundle)
        return X509SvidResponse(svids=[message], federated_bundles=self._federated)


def _der(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.DER) for certificate in certificates)

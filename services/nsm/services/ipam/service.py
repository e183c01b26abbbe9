"""The API of the prefix service: one stream for each client, which requests prefixes and gives them back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from nsm.apis.ipam import PrefixRequest, PrefixResponse, Type
from nsm.chains.core import InvalidRequest, Refused
from nsm.chains.logs import log
from nsm.chains.model.addresses import Network, read_interface
from nsm.chains.policy import IdPatterns
from nsm.chains.transport import Conversing, Incoming, Methods

from .lease_store import Holder
from .leases import Leases

MANAGE_PREFIXES = "/ipam.IPAM/ManagePrefixes"
ENDPOINT = "nsm-endpoint"
"""Metadata with the name of the endpoint that requests prefixes. Not upstream's, whose endpoints have no name here."""
NETWORK = "nsm-network"
"""Metadata of the answer: the network that prefixes are of. Not upstream's, whose endpoints assume one."""
_MOST_EXCLUDED = 256


class PrefixService:
    """Answers requests for prefixes from `leases`. With `clients`, only their SPIFFE IDs may have any."""

    def __init__(self, leases: Leases, clients: IdPatterns) -> None:
        self._leases, self._clients = leases, clients

    def methods(self) -> Methods:
        """ManagePrefixes."""
        return {MANAGE_PREFIXES: Conversing(PrefixRequest, self._manage)}

    async def _manage(
        self, requests: AsyncIterator[PrefixRequest], incoming: Incoming
    ) -> AsyncIterator[Sequence[PrefixResponse]]:
        assert incoming.peer is not None
        holder, stream = Holder(incoming.peer.spiffe_id, incoming.metadata.get(ENDPOINT, "")), object()
        if self._clients and not self._clients.matches(holder.spiffe_id):
            raise Refused(f"{holder.spiffe_id} may have no prefix here: NSM_CLIENTS lists who may")
        incoming.headers.append((NETWORK, str(self._leases.network)))
        try:
            async for request in requests:
                match request.type:
                    case Type.ALLOCATE:
                        yield [await self._allocate(request, holder, stream)]
                    case Type.DELETE:
                        await self._delete(request, holder, stream)
                    case _:
                        raise InvalidRequest(f"type {int(request.type)} of a request is neither ALLOCATE nor DELETE")
        finally:
            self._leases.ended(stream)

    async def _allocate(self, request: PrefixRequest, holder: Holder, stream: object) -> PrefixResponse:
        if len(request.exclude_prefixes) > _MOST_EXCLUDED:
            raise InvalidRequest(f"the request excludes {len(request.exclude_prefixes)} prefixes, of {_MOST_EXCLUDED}")
        wanted = _network(request.prefix) if request.prefix else None
        excluded = [_network(each) for each in request.exclude_prefixes]
        prefix = await self._leases.allocate(holder, stream, wanted, excluded)
        if wanted is not None and prefix != wanted:
            log.info("another prefix than requested", requested=str(wanted), given=str(prefix), to=str(holder))
        return PrefixResponse(prefix=str(prefix), exclude_prefixes=list(request.exclude_prefixes))

    async def _delete(self, request: PrefixRequest, holder: Holder, stream: object) -> None:
        prefix = _network(request.prefix)
        if await self._leases.give_back(stream, prefix):
            log.info("prefix given back", prefix=str(prefix), by=str(holder))


def _network(text: str) -> Network:
    if (interface := read_interface(text)) is None:
        raise InvalidRequest(f"{text[:64]!r} is not a prefix; expected one such as 172.16.0.0/24")
    return interface.network

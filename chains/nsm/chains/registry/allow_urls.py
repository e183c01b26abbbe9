"""Where an endpoint may say that it is."""

from __future__ import annotations

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import InvalidRequest, Peer, Refused, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.model.endpoint_url import (
    EndpointUrl,
    IpAddress,
    address_in,
    is_nowhere,
    is_of_this_host,
    read_endpoint_url,
)
from nsm.chains.policy import Hosts, Trust
from nsm.chains.transport.inbox import is_socket

VARIABLE = "NSM_REGISTRATION_HOSTS"


class AllowUrls(RegistryElement[NetworkServiceEndpoint]):
    """Refuse a Register under a URL of another kind, or of a place that is not the caller's.

    Others are led to what is registered. So an endpoint is at the address that its caller connected from, or at one of
    `hosts`; a caller on this very host, in the same network namespace, may name its addresses, loopback included. Whom
    `trust` lets vouch for others may name other hosts' too: a manager's calls may leave by another address than others
    reach it at. Where `takes_descriptors`, as at a manager, callers on a unix socket may send their own socket.
    """

    def __init__(self, hosts: Hosts, trust: Trust, *, takes_descriptors: bool) -> None:
        self._hosts, self._trust, self._takes_descriptors = hosts, trust, takes_descriptors

    async def register(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        """Raise `InvalidRequest` for a URL of another kind, `Refused` for somebody else's place."""
        if call.peer is not None and call.record.url:  # one without a URL leads nobody anywhere
            self._check(call.record.name, call.record.url, call.peer)
        return await rest.register(call)

    def _check(self, name: str, text: str, peer: Peer) -> None:
        url = read_endpoint_url(text)
        if url is None:
            raise InvalidRequest(
                f"endpoint {name!r} cannot be registered at {text[:_SHOWN]!r}; expected tcp://host:port"
                + (", or its unix socket, passed as a descriptor" if self._takes_descriptors else "")
            )
        if not self._may_be_at(url, peer):
            raise Refused(
                f"no sufficient privileges: {peer.spiffe_id} may not register {name!r} at {text[:_SHOWN]!r}, "
                f"which is not its own place; {VARIABLE} says which others may be registered"
            )

    def _may_be_at(self, url: EndpointUrl, peer: Peer) -> bool:
        if url.is_descriptor:
            return self._takes_descriptors and not peer.address
        if url.path:
            return not self._takes_descriptors and not peer.address and (peer.address is None or is_socket(url.path))
        return self._hosts.have(url.host) or self._is_place_of(url.host, peer)

    def _is_place_of(self, host: IpAddress | str, peer: Peer) -> bool:
        if peer.address is None:  # it did not come over a socket: nothing is known of where it is
            return isinstance(host, str) or not is_nowhere(host)
        caller = address_in(peer.address)
        if caller == host:
            return True
        vouches = self._trust.matches(peer.spiffe_id)
        if isinstance(host, str):
            return vouches
        if is_nowhere(host):
            return False
        is_near = peer.is_near if caller is None else is_of_this_host(caller)
        if is_near and is_of_this_host(host):
            return True
        return vouches and (is_near or not host.is_loopback)


_SHOWN = 128
"""Characters of a URL that an error shows."""

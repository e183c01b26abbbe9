"""Which URLs an endpoint may register."""

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
    """Refuse a Register under a URL of an unsupported kind, or under an address that is not the caller's.

    Others connect to the registered address. So it must be the address that the caller connected from, or one of
    `hosts`; a caller on this host, in the same network namespace, may name any of its addresses, including loopback.
    Callers that may vouch for others by `trust` may also name other hosts: a manager's outgoing address may differ
    from the one it is reachable at. With `takes_descriptors`, as at a manager, callers on a unix socket may pass their
    own socket.
    """

    def __init__(self, hosts: Hosts, trust: Trust, *, takes_descriptors: bool) -> None:
        self._hosts, self._trust, self._takes_descriptors = hosts, trust, takes_descriptors

    async def register(
        self, call: RegistryCall[NetworkServiceEndpoint], rest: RegistryHandler[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        """Raise `InvalidRequest` for an unsupported URL, `Refused` for an address that is not the caller's."""
        if call.peer is not None and call.record.url:  # without a URL, nothing connects to it
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
                f"which is not its own address; {VARIABLE} lists others that may be registered"
            )

    def _may_be_at(self, url: EndpointUrl, peer: Peer) -> bool:
        if url.is_descriptor:
            return self._takes_descriptors and not peer.address
        if url.path:
            return not self._takes_descriptors and not peer.address and (peer.address is None or is_socket(url.path))
        return self._hosts.have(url.host) or self._is_address_of(url.host, peer)

    def _is_address_of(self, host: IpAddress | str, peer: Peer) -> bool:
        if peer.address is None:  # not connected by a socket, so its address is unknown
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
"""The longest part of a URL that an error shows, in characters."""

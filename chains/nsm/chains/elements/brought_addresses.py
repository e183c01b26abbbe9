"""What a client may bring along to an endpoint: addresses that it has from elsewhere, and no routes beyond them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from nsm.apis.connectioncontext import IpContext, Route
from nsm.chains.core import Call, Key
from nsm.chains.model.addresses import Address, Interface, read_address, read_interface
from nsm.chains.model.ipcontext import interfaces
from nsm.chains.model.networks import Networks, host_fault
from nsm.chains.model.prefixes import Excluded


@dataclass(frozen=True, slots=True)
class Named:
    """The addresses of a request as the client sent them, and what elements have given since."""

    sources: Sequence[Interface]
    destinations: Sequence[Interface]
    given: set[Interface] = field(default_factory=set)


_NAMED: Key[Named] = Key("addresses that the client named")


@contextmanager
def named_by_client(call: Call, context: IpContext) -> Iterator[Named]:
    """What the client named, also for the second of several elements that give addresses and sort out others."""
    if (named := call.live.get(_NAMED)) is not None:
        yield named
        return
    try:
        yield call.live.put(_NAMED, Named(interfaces(context.src_ip_addrs), interfaces(context.dst_ip_addrs)))
    finally:
        call.live.pop(_NAMED)


class Brought:
    """Which addresses clients have brought along, each for one connection at a time.

    A client that comes from an endpoint that is gone brings that one's addresses, and keeps them as upstream's clients
    expect it: single private addresses that nobody else has here, that are not of the endpoint's own networks, and that
    the request does not exclude. Of `allowed` networks anything may come, also routes.
    """

    def __init__(self, allowed: Networks, underlay: Callable[[], Networks]) -> None:
        self._allowed, self._underlay = allowed, underlay
        self._holders: dict[Address, str] = {}
        self._held: Key[set[Address]] = Key("addresses that the client brought")

    def __len__(self) -> int:
        """How many there are: what a leak test counts."""
        return len(self._holders)

    def sort_out(self, call: Call, context: IpContext, own: Collection[Interface], pools: Networks) -> None:
        """Leave in `context` what is the connection's `own` and what it may bring; addresses of `pools` it may not."""
        excluded = Excluded(context.excluded_prefixes)
        connection_id, held = call.live.connection_id, set[Address]()

        def stays(interface: Interface) -> bool:
            if interface in own:
                return True
            ip = interface.ip
            fits = self._may_be(interface) and ip not in pools and ip not in excluded
            if fits and self._holders.get(ip, connection_id) == connection_id:
                held.add(ip)
                return True
            return False

        before = {each.ip for each in interfaces([*context.src_ip_addrs, *context.dst_ip_addrs])}
        context.src_ip_addrs, src = _filtered(context.src_ip_addrs, stays)
        context.dst_ip_addrs, dst = _filtered(context.dst_ip_addrs, stays)
        self._hold(call, held)
        lost = before - src - dst
        context.dst_routes = [route for route in context.dst_routes if self._is_fine(route, src)]
        context.src_routes = [route for route in context.src_routes if not _leads_to(route, lost)]
        context.ip_neighbors = [each for each in context.ip_neighbors if read_address(each.ip) in src | dst]

    def _may_be(self, interface: Interface) -> bool:
        if host_fault(interface.ip) is not None:
            return False
        if self._allowed.cover(interface.network):
            return True
        is_single, ip = interface.network.num_addresses == 1, interface.ip
        return is_single and not (ip.is_global or ip.is_link_local) and ip not in self._underlay()

    def _is_fine(self, route: Route, sources: Collection[Address]) -> bool:
        """Whether a route of the endpoint leads to the client's addresses, or by them to an allowed network."""
        prefix = read_interface(route.prefix)
        if prefix is None or (route.next_hop and read_address(route.next_hop) not in sources):
            return False
        is_client = prefix.network.num_addresses == 1 and prefix.ip in sources
        return is_client or self._allowed.cover(prefix.network)

    def _hold(self, call: Call, held: set[Address]) -> None:
        before = call.live.get(self._held)
        if before is None:
            if not held:
                return
            before = call.live.put(self._held, set())
            call.live.on_end(lambda: self._release(call.live.get(self._held) or ()))
        self._release(before - held)
        self._holders.update(dict.fromkeys(held, call.live.connection_id))
        call.live.put(self._held, held)

    def _release(self, addresses: Iterable[Address]) -> None:
        for address in addresses:
            self._holders.pop(address, None)


def _filtered(addresses: Iterable[str], stays: Callable[[Interface], bool]) -> tuple[list[str], set[Address]]:
    """The texts of those that stay, and what they are."""
    kept = [(text, each) for text in addresses if (each := read_interface(text)) is not None and stays(each)]
    return [text for text, _ in kept], {each.ip for _, each in kept}


def _leads_to(route: Route, addresses: Collection[Address]) -> bool:
    """Whether a route leads to, or by, one of `addresses`."""
    prefix = read_interface(route.prefix)
    is_there = prefix is not None and prefix.network.num_addresses == 1 and prefix.ip in addresses
    return is_there or (bool(route.next_hop) and read_address(route.next_hop) in addresses)

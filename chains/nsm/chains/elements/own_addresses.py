"""Sets an endpoint's end of a wire to the addresses that the endpoint gave, whatever its client sends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import IpContext, Route
from nsm.chains.core import Call, Element, Handler, Key
from nsm.chains.logs import log
from nsm.chains.model.addresses import Address, Interface, read_address, read_interface
from nsm.chains.model.networks import NO_NETWORKS, Networks, host_fault
from nsm.chains.model.prefixes import Excluded

from .former_wires import FormerWires
from .underlay import Underlay


@runtime_checkable
class GivesAddresses(Protocol):
    """An element that gives addresses from networks of its own."""

    networks: Networks

    def given(self, call: Call) -> Collection[Interface]:
        """The addresses that it gave to the call's connection."""
        ...


@runtime_checkable
class AdmitsMore(Protocol):
    """An element that lets some clients bring addresses and routes of their own."""

    async def admitted(self, call: Call) -> Networks:
        """The networks from which the call's client may bring them, even those that another connection has.

        Raises if it may not be served at all.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Ends:
    """The settings of the wire's ends: addresses of either, and routes of the endpoint's, as texts."""

    src: frozenset[str] = frozenset()
    dst: frozenset[str] = frozenset()
    routes: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, context: IpContext) -> _Ends:
        routes = frozenset((route.prefix, route.next_hop) for route in context.dst_routes)
        return cls(frozenset(context.src_ip_addrs), frozenset(context.dst_ip_addrs), routes)


_NOTHING = _Ends()


@dataclass(slots=True)
class _Known:
    """The addresses of one connection: those answered, those of them that this endpoint gave, and all of them."""

    answered: _Ends = field(default_factory=_Ends)
    given: _Ends = field(default_factory=_Ends)
    addresses: frozenset[Address] = frozenset()


class OwnAddresses(Element):
    """Pass on only the permitted addresses of a Request and of the endpoint's routes; the answer has the rest.

    Whatever this endpoint gave to the connection stays. A client that moves from an endpoint that is gone brings that
    one's addresses, and keeps them as upstream's clients expect: single private addresses (not global, link-local or of
    no host) that no other connection has here, that are outside the endpoint's own networks, and that the request
    does not exclude; with routes of the endpoint to these addresses and no others. Addresses and routes within the
    `allowed` networks always pass, and those that one of `elements` admits (`AdmitsMore`). An address from the pools
    of one of `elements` stays only if that one gave it.

    The addresses of wires that an earlier process of the endpoint served stay theirs, until their clients have
    requested again or the wires are gone: see `former`.

    Stands before all elements that give addresses or routes. `underlay` has the networks of the endpoint itself.
    """

    def __init__(
        self,
        elements: Sequence[Element] = (),
        allowed: Networks = NO_NETWORKS,
        underlay: Callable[[], Networks] | None = None,
        former: FormerWires | None = None,
    ) -> None:
        self._ipams = [each for each in elements if isinstance(each, GivesAddresses)]
        self._admitting = [each for each in elements if isinstance(each, AdmitsMore)]
        self._allowed, self._underlay = allowed, underlay or Underlay()
        self._former = FormerWires(elements) if former is None else former
        self._used: Counter[Address] = Counter()
        self._known: Key[_Known] = Key("addresses and routes of the wire's ends")

    def __len__(self) -> int:
        """The number of addresses in use, which a leak test counts."""
        return len(self._used)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Remove foreign addresses on the way in, and on the way back those that no ipam gave."""
        stood = call.live.get(self._known)
        if stood is None:
            self._former.look(self._used)
        known = stood or _Known()
        context = _context_of(call.connection)
        asked = named = _Ends.of(context)
        if is_new := named not in (known.answered, _NOTHING) or bool(context.ip_neighbors):
            self._sort_out(call, context, known, await self._admitted(call))
            named = _Ends.of(context)
        connection = await rest.request(call)
        answer = _context_of(connection)
        if is_new:
            self._take_back_pools(call, answer)
        self._remember(call, known, answer, named)
        if known.answered != asked:
            _tell(call, asked, known.answered)
        if stood is None:
            self._former.claimed(call)
        return connection

    async def aclose(self) -> None:
        """Stop watching the kernel."""
        self._former.close()

    async def _admitted(self, call: Call) -> Networks:
        if not self._admitting:
            return NO_NETWORKS
        return Networks.of_all([await each.admitted(call) for each in self._admitting])

    def _sort_out(self, call: Call, context: IpContext, known: _Known, admitted: Networks) -> None:
        excluded, given = Excluded(context.excluded_prefixes), known.given

        def stays(text: str, own: Collection[str]) -> bool:
            interface = read_interface(text)
            return interface is not None and (
                text in own or admitted.cover(interface.network) or self._may_bring(call, interface, known, excluded)
            )

        before = _addresses(context)
        context.src_ip_addrs = [text for text in context.src_ip_addrs if stays(text, given.src)]
        context.dst_ip_addrs = [text for text in context.dst_ip_addrs if stays(text, given.dst)]
        allowed = Networks.of_all([self._allowed, admitted]) if admitted else self._allowed
        self._drop_routes(context, before, given, allowed)

    def _drop_routes(self, context: IpContext, before: frozenset[Address], given: _Ends, allowed: Networks) -> None:
        """Keep the endpoint's routes that it gave, or that lead to the client; none by addresses that are gone."""
        now, sources = _addresses(context), _read(context.src_ip_addrs)
        lost = before - now
        context.dst_routes = [
            route
            for route in context.dst_routes
            if (route.prefix, route.next_hop) in given.routes or _may_lead(route, sources, allowed)
        ]
        if lost:
            context.dst_routes = [route for route in context.dst_routes if not _leads_to(route, lost)]
            context.src_routes = [route for route in context.src_routes if not _leads_to(route, lost)]
        context.ip_neighbors = [each for each in context.ip_neighbors if read_address(each.ip) in now]

    def _may_bring(self, call: Call, interface: Interface, known: _Known, excluded: Excluded) -> bool:
        ip = interface.ip
        if self._used[ip] > (ip in known.addresses) or ip in excluded or host_fault(ip) is not None:
            return False
        if self._former.is_anothers(ip, call):
            return False
        if self._allowed.cover(interface.network) or self._is_of_pool(ip):
            return True
        if interface.network.num_addresses > 1 or ip.is_global or ip.is_link_local:
            return False
        return ip in known.addresses or ip not in self._underlay()  # the wire may be there and not look like one

    def _is_of_pool(self, ip: Address) -> bool:
        return any(ip in ipam.networks for ipam in self._ipams)

    def _take_back_pools(self, call: Call, context: IpContext) -> None:
        """Drop an address of a pool that was requested again but not given: another client may get it next."""
        own = {interface for ipam in self._ipams for interface in ipam.given(call)}

        def stays(text: str) -> bool:
            interface = read_interface(text)
            return interface is None or interface in own or not self._is_of_pool(interface.ip)

        before = _addresses(context)
        context.src_ip_addrs = list(filter(stays, context.src_ip_addrs))
        context.dst_ip_addrs = list(filter(stays, context.dst_ip_addrs))
        if lost := before - _addresses(context):
            context.dst_routes = [route for route in context.dst_routes if not _leads_to(route, lost)]
            context.src_routes = [route for route in context.src_routes if not _leads_to(route, lost)]

    def _remember(self, call: Call, known: _Known, context: IpContext, named: _Ends) -> None:
        """Record what this endpoint gave: whatever the answer has and the Request had not, and what it gave before."""
        now, given = _Ends.of(context), known.given
        if now == named == known.answered:
            return
        known.answered = now
        known.given = _Ends(
            now.src - (named.src - given.src),
            now.dst - (named.dst - given.dst),
            now.routes - (named.routes - given.routes),
        )
        if call.live.get(self._known) is None:
            call.live.put(self._known, known)
            call.live.on_end(lambda: self._use(known, frozenset()))
        self._use(known, _addresses(context))

    def _use(self, known: _Known, addresses: frozenset[Address]) -> None:
        self._used.update(addresses - known.addresses)
        for address in known.addresses - addresses:
            self._used[address] -= 1
            if not self._used[address]:
                del self._used[address]
        known.addresses = addresses


def _may_lead(route: Route, sources: Collection[Address], allowed: Networks) -> bool:
    """Whether a route leads to one of the client's addresses, or by them to an allowed network."""
    prefix = read_interface(route.prefix)
    if prefix is None or (route.next_hop and read_address(route.next_hop) not in sources):
        return False
    is_client = prefix.network.num_addresses == 1 and prefix.ip in sources
    return is_client or allowed.cover(prefix.network)


def _tell(call: Call, asked: _Ends, answered: _Ends) -> None:
    """Log the addresses that a client cannot keep."""
    if lost := (asked.src | asked.dst) - (answered.src | answered.dst):
        log.info(
            "a client's addresses belong to another wire or endpoint, or are excluded: it has new ones now",
            connection=call.live.connection_id,
            lost=sorted(lost),
            has=sorted(answered.src | answered.dst),
        )


def _context_of(connection: Connection) -> IpContext:
    context = connection.context.ip_context if connection.context is not None else None
    return context if context is not None else IpContext()


def _addresses(context: IpContext) -> frozenset[Address]:
    return _read([*context.src_ip_addrs, *context.dst_ip_addrs])


def _read(addresses: Iterable[str]) -> frozenset[Address]:
    return frozenset(each.ip for text in addresses if (each := read_interface(text)) is not None)


def _leads_to(route: Route, addresses: Collection[Address]) -> bool:
    """Whether a route leads to, or by, one of `addresses`."""
    prefix = read_interface(route.prefix)
    is_there = prefix is not None and prefix.network.num_addresses == 1 and prefix.ip in addresses
    return is_there or (bool(route.next_hop) and read_address(route.next_hop) in addresses)

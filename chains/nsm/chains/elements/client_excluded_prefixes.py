"""Keeps the wires of one client apart: no two of them have the same address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import IpContext
from nsm.chains.core import Call, Conflict, Element, Handler, Key, MeshError
from nsm.chains.logs import log
from nsm.chains.model.ipcontext import host_prefix, interfaces, ip_context_of
from nsm.chains.model.nsurl import NsUrl

_TRIES = 3

Groups = Sequence[Sequence[NsUrl]]


@dataclass(slots=True, eq=False)
class _Wire:
    """The addresses of one connection."""

    service: str
    group: int | None
    hosts: frozenset[str] = frozenset()
    """Addresses of both ends and host routes, as /32 or /128."""
    excluded: frozenset[str] = frozenset()
    """The prefixes that others than this element exclude from it."""


class ClientExcludedPrefixes(Element):
    """Exclude from each request the addresses of the client's other wires, and check the answer against them.

    Wires of one awareness group may have the same addresses. If two concurrent requests get the same addresses, the
    later one is requested again. Raises `Conflict`, and closes the connection, if an endpoint insists.
    Stands before the element that sends descriptors.
    """

    def __init__(self, awareness_groups: Groups = ()) -> None:
        self._groups = awareness_groups
        self._wires: set[_Wire] = set()
        self._wire: Key[_Wire] = Key("wire")
        self._added: Key[frozenset[str]] = Key("prefixes of other wires")

    def __len__(self) -> int:
        """The number of wires, which a leak test counts."""
        return len(self._wires)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Add the prefixes; check and remember the answer's addresses."""
        wire = call.live.get(self._wire) or _Wire(call.connection.network_service, self._group_of(call))
        asked, sent, fault = codec.clone(call.request), len(call.outgoing), ""
        for _ in range(_TRIES):
            excluded = self._exclude(call, wire)
            connection = await rest.request(call)
            before, fault = fault, self._fault(wire, connection)
            if not fault:
                self._remember(call, wire, connection, excluded)
                return connection
            if not before:
                call.undo.add(partial(_close, call, codec.clone(connection), rest))
            call.request = replace(codec.clone(asked), connection=codec.clone(connection))
            del call.outgoing[sent:]
        raise Conflict(fault)

    async def close(self, call: Call, rest: Handler) -> None:
        """Forget the wire, even if the Close fails."""
        try:
            await rest.close(call)
        finally:
            if (wire := call.live.pop(self._wire)) is not None:
                self._wires.discard(wire)

    def _exclude(self, call: Call, wire: _Wire) -> frozenset[str]:
        """Replace the prefixes that were added to the request before by the others' prefixes; returns these."""
        context, before = ip_context_of(call.connection), call.live.get(self._added) or frozenset()
        own = [prefix for prefix in dict.fromkeys(context.excluded_prefixes) if prefix not in before]
        others = dict.fromkeys(
            prefix for other in self._others(wire) for prefix in sorted(other.hosts | other.excluded)
        )
        there = wire.hosts.union(own)
        new = [prefix for prefix in others if prefix not in there]
        context.excluded_prefixes = [*own, *new]
        call.live.put(self._added, before.union(new))  # if this fails, the next request still has the former ones
        return frozenset(new)

    def _fault(self, wire: _Wire, connection: Connection) -> str:
        """The conflict of the answer with another wire; empty if there is none."""
        hosts = _hosts(ip_context_of(connection))
        for other in self._others(wire):
            for host in sorted(hosts & other.hosts):
                name = connection.network_service_endpoint_name or "the endpoint"
                return f"{name} gave {host} to the wire to {wire.service!r}, which the one to {other.service!r} has"
        return ""

    def _remember(self, call: Call, wire: _Wire, connection: Connection, added: frozenset[str]) -> None:
        context = ip_context_of(connection)
        call.live.put(self._added, added)
        wire.hosts = _hosts(context)
        wire.excluded = frozenset(context.excluded_prefixes) - added
        if wire not in self._wires:
            self._wires.add(wire)
            call.live.put(self._wire, wire)
            call.live.on_end(lambda: self._wires.discard(wire))

    def _others(self, wire: _Wire) -> Iterable[_Wire]:
        """The wires that must not share addresses with `wire`."""
        for other in self._wires:
            if other is not wire and (other.group is None or other.group != wire.group):
                yield other

    def _group_of(self, call: Call) -> int | None:
        return next(
            (n for n, group in enumerate(self._groups) if any(each.means(call.request) for each in group)), None
        )


def _hosts(context: IpContext) -> frozenset[str]:
    routes = [route.prefix for route in (*context.src_routes, *context.dst_routes)]
    to_hosts = [interface.ip for interface in interfaces(routes) if interface.network.num_addresses == 1]
    addresses = [interface.ip for interface in interfaces([*context.src_ip_addrs, *context.dst_ip_addrs])]
    return frozenset(map(host_prefix, [*addresses, *to_hosts]))


async def _close(call: Call, connection: Connection, rest: Handler) -> None:
    closing = call.postponed()
    closing.connection = connection
    try:
        await rest.close(closing)
    except MeshError as error:
        log.warning("could not close a wire whose addresses do not fit", connection=connection.id, error=str(error))

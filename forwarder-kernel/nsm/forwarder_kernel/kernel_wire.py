"""Makes the part of a wire that is on this node: a veth pair, or one end and its tunnel."""

from __future__ import annotations

from functools import partial

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import INTERFACE_NAME, KERNEL
from nsm.chains.core import Call, Element, Handler, Key, Store, Unsupported, both_to_the_end
from nsm.chains.elements.idle import hold
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.logs import log

from .dataplane import Dataplane
from .ends import Wire, wire_of
from .live_wire import Client, LiveWire
from .tunnels import TUNNEL, Breakout, Tunnel
from .wireguard_go import AHEAD

ACCEPT_RA = "accept-ra"
"""The label by which a client takes addresses and routes from IPv6 router advertisements: ``accept-ra=true``."""
LIVE: Key[LiveWire] = Key("wire")
"""The wire of a connection, while there is one: set by the element that makes it, read by those that watch it."""


class KernelWire(Element):
    """Make the wire when both sides are known, that is when the endpoint has answered; update it afterwards.

    Between two KERNEL sides it is a veth pair; otherwise the elements of the other side's mechanism set the tunnel.
    Stands in the server's chain before the elements that request from the endpoint. A refresh without changes touches
    nothing; a wire that vanished is made again; a Close removes it in any case.

    While the connection is idle its namespaces are released: they end with their last process, and the wire with them.
    As long as they exist packets pass, and the next request finds the wire unchanged.
    """

    def __init__(self, dataplane: Dataplane, far_side: MechanismTranslation) -> None:
        self._dataplane, self._far_side = dataplane, far_side

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Let the endpoint answer, then make or change the wire."""
        accept_ra, stood = call.connection.labels.get(ACCEPT_RA) == "true", bool(call.stood_behind())
        connection = await rest.request(call)
        if not accept_ra:
            connection.labels.pop(ACCEPT_RA, None)  # the endpoint must not set it for the client, nor at a refresh
        near, far = connection.mechanism, self._far_side.far_side(call)
        tunnel = _tunnel(call, near, far)
        assert near is not None
        assert far is not None
        _note_interfaces(connection, near, far, tunnel)
        wire = wire_of(connection, near, far, tunnel, accept_ra=accept_ra)
        live = call.live.get(LIVE)
        if live is not None and not await self._still_fits(call, live, wire):
            live = None
        if live is None:
            ahead, client = call.live.pop(AHEAD), _client(call)
            live = await self._dataplane.create(wire, call.live.connection_id, ahead, client)
            live.when_superseded = partial(_close, call.live)
            call.live.put(LIVE, live)
            if not stood:  # it may be the former wire, in use: a failed refresh does not end it
                call.undo.add(lambda: self._remove(call))
            log.info("wire made", connection=call.live.connection_id, ms=round(live.seconds * 1000, 2))
        elif wire != live.wire:
            await self._dataplane.change(live, wire)
        hold(call.live, self, partial(self._let_go, call.live))
        return connection

    async def _let_go(self, store: Store) -> None:
        if (live := store.get(LIVE)) is not None:
            await self._dataplane.let_go(live)

    async def close(self, call: Call, rest: Handler) -> None:
        """Remove the wire while the components behind close: neither waits for the other, nor prevents it."""
        await both_to_the_end(rest.close(call), self._remove(call))

    async def aclose(self) -> None:
        """Stop; the wires stay."""
        await self._dataplane.aclose()

    async def _still_fits(self, call: Call, live: LiveWire, wire: Wire) -> bool:
        """Whether the wire exists at the right place; otherwise it is removed."""
        has_moved = live.is_loose or live.wire.places != wire.places
        if has_moved and not await self._dataplane.hold_again(live, wire):
            await self._remove(call)
            return False
        is_same = (live.wire.places, live.wire.tunnel) == (wire.places, wire.tunnel)
        if is_same and await self._dataplane.exists(live):
            return True
        await self._remove(call)
        return False

    async def _remove(self, call: Call) -> None:
        """Also a wire that an earlier process made for a connection unknown to this one."""
        call.live.pop(LIVE)
        await self._dataplane.remove(call.live.connection_id)


def _client(call: Call) -> Client:
    """The owner of the connection, and the client's name for it."""
    path = call.connection.path
    return Client(call.owner, path.path_segments[0].id if path is not None and path.path_segments else "")


def _close(store: Store) -> None:
    """End a connection whose client has replaced its wire by that of another one."""
    log.info("the client has come back with another connection; this one ends", connection=store.connection_id)
    store.spawn(store.events.close(), name="close of what was superseded")


def _tunnel(call: Call, near: Mechanism | None, far: Mechanism | None) -> Tunnel | None:
    """The tunnel of a wire that leaves this node. Raises `Unsupported` if the two sides cannot be joined here."""
    kinds = [side.type if side is not None else "no mechanism" for side in (near, far)]
    if kinds == [KERNEL, KERNEL]:
        call.live.pop(TUNNEL)
        return None
    tunnel = call.live.get(TUNNEL)
    if KERNEL not in kinds or tunnel is None:
        raise Unsupported(f"a wire from {kinds[0]} to {kinds[1]} cannot be made here; one side has to be KERNEL")
    return tunnel


def _note_interfaces(connection: Connection, near: Mechanism, far: Mechanism, tunnel: Tunnel | None) -> None:
    """Put the names of the wire's ends into our path segment; for a breakout, its uplink."""
    if connection.path is not None:
        metrics = connection.path.path_segments[connection.path.index].metrics
        out = str(tunnel) if isinstance(tunnel, Breakout) else _name_of(far)
        metrics.setdefault("server_interface", f"{near.type}/{_name_of(near)}")
        metrics.setdefault("client_interface", f"{far.type}/{out}")


def _name_of(side: Mechanism) -> str:
    return side.parameters.get(INTERFACE_NAME) or "unknown"

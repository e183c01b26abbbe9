"""Makes the part of a wire that is on this node, between the two sides that their mechanisms describe."""

from __future__ import annotations

from functools import partial
from typing import Any

from nsm.apis.connection import Connection, Mechanism, State
from nsm.chains.core import Call, Element, Handler, Store, Unsupported, both_to_the_end
from nsm.chains.elements.idle import hold
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.elements.monitor import REPORTER, set_fault
from nsm.chains.logs import log

from .dataplane import BEGUN, LIVE, Client, Dataplane, LiveWire
from .sides import CLIENT_SIDE, ENDPOINT_SIDE, Side, local_side
from .wires import Wire, wire_of

ACCEPT_RA = "accept-ra"
"""The label by which a client takes addresses and routes from IPv6 router advertisements: ``accept-ra=true``."""


class MakeWire(Element):
    """Make the wire when both sides are known, that is when the endpoint has answered; update it afterwards.

    Sides inside the node follow from their mechanisms; the elements of another mechanism have set theirs before: see
    `sides`. Stands in the server's chain before the elements that request from the endpoint. A refresh without changes
    touches nothing; a wire that vanished is made again; a Close removes it in any case.

    While the connection is idle its namespaces are released: they end with their last process, and the wire with them.
    As long as they exist packets pass, and the next request finds the wire unchanged.
    """

    def __init__(self, dataplane: Dataplane[Any], far_side: MechanismTranslation) -> None:
        self._dataplane, self._far_side = dataplane, far_side

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Let the endpoint answer, then make or change the wire."""
        accept_ra, stood = call.connection.labels.get(ACCEPT_RA) == "true", bool(call.stood_behind())
        _note_client(call)
        connection = await rest.request(call)
        if not accept_ra:
            connection.labels.pop(ACCEPT_RA, None)  # the endpoint must not set it for the client, nor at a refresh
        near = connection.mechanism
        client, endpoint = _sides(call.live, near, self._far_side.far_side(call))
        _note_interfaces(connection, client, endpoint)
        wire = wire_of(connection, client, endpoint, accept_ra=accept_ra)
        try:
            live = await self._bring(call, wire, stood=stood)
        finally:  # what was opened until a failure is released too
            hold(call.live, self, partial(self._let_go, call.live))
        _tell(connection, live)
        return connection

    async def _bring(self, call: Call, wire: Wire, *, stood: bool) -> LiveWire:
        """Make the wire, or change the one that is there."""
        live: LiveWire | None = call.live.get(LIVE)
        if live is not None and not await self._dataplane.resume(live, wire):
            await self._remove(call)
            live = None
        if live is None:
            return await self._make(call, wire, stood=stood)
        if wire != live.wire:
            await self._dataplane.change(live, wire)
        return live

    async def close(self, call: Call, rest: Handler) -> None:
        """Remove the wire while the components behind close: neither waits for the other, nor prevents it."""
        await both_to_the_end(rest.close(call), self._remove(call))

    async def aclose(self) -> None:
        """Stop; the wires stay."""
        await self._dataplane.aclose()

    async def _make(self, call: Call, wire: Wire, *, stood: bool) -> LiveWire:
        begun, client = call.live.pop(BEGUN), _client(call)
        live: LiveWire = await self._dataplane.create(wire, call.live.connection_id, begun, client)
        live.when_superseded = partial(_close, call.live, live)
        live.when_repaired = partial(_report, call.live, live)
        call.live.put(LIVE, live)
        if not stood:  # it may be the former wire, in use: a failed refresh does not end it
            call.undo.add(lambda: self._remove(call))
        log.info("wire made", connection=call.live.connection_id, ms=round(live.seconds * 1000, 2))
        return live

    async def _let_go(self, store: Store) -> None:
        if (live := store.get(LIVE)) is not None:
            await self._dataplane.let_go(live)

    async def _remove(self, call: Call) -> None:
        """Also a wire that an earlier process made for a connection unknown to this one."""
        call.live.pop(LIVE)
        await self._dataplane.remove(call.live.connection_id)


def _client(call: Call) -> Client:
    """The owner of the connection, and the client's name for it."""
    path = call.connection.path
    return Client(call.owner, path.path_segments[0].id if path is not None and path.path_segments else "")


def _close(store: Store, live: LiveWire) -> None:
    """End a connection whose client has replaced its wire by that of another one."""
    log.info("the client has come back with another connection; this one ends", connection=store.connection_id)
    closing = store.events.close(still=lambda: store.get(LIVE) is live)
    store.spawn(closing, name="close of what was superseded")


def _report(store: Store, live: LiveWire, is_whole: bool) -> None:
    """Pass on what the dataplane reports of a wire that it repairs."""
    if (reporter := store.get(REPORTER)) is not None and store.get(LIVE) is live:
        reporter.report_repair(store.connection_id, live.fault)
        if not live.fault and not is_whole:
            reporter.report(store.connection_id, State.REFRESH_REQUESTED)


def _note_client(call: Call) -> None:
    """The client's side, if it is on this node: it is complete before the endpoint is requested."""
    near = call.connection.mechanism
    if near is not None and (side := local_side(near)) is not None:
        call.live.put(CLIENT_SIDE, side)


def _sides(store: Store, near: Mechanism | None, far: Mechanism | None) -> tuple[Side, Side]:
    """The client's and the endpoint's side. Raises `Unsupported` if no element has set one that leads elsewhere."""
    client, endpoint = store.get(CLIENT_SIDE), local_side(far) if far is not None else None
    if endpoint is not None:
        store.pop(ENDPOINT_SIDE)
    else:
        endpoint = store.get(ENDPOINT_SIDE)
    if client is None or endpoint is None or (client.kind, endpoint.kind) != (_kind(near), _kind(far)):
        what = f"a wire from {_kind(near)} to {_kind(far)} cannot be made here"
        raise Unsupported(what, remedy="request another mechanism, or use a forwarder that joins these two")
    return client, endpoint


def _kind(mechanism: Mechanism | None) -> str:
    return mechanism.type if mechanism is not None else "no mechanism"


def _note_interfaces(connection: Connection, client: Side, endpoint: Side) -> None:
    """Put the names of the interfaces into our path segment; for a breakout, its uplink."""
    if connection.path is not None:
        metrics = connection.path.path_segments[connection.path.index].metrics
        metrics.setdefault("server_interface", f"{client.kind}/{client.interface or 'unknown'}")
        metrics.setdefault("client_interface", f"{endpoint.kind}/{endpoint.interface or 'unknown'}")


def _tell(connection: Connection, live: LiveWire) -> None:
    """What the dataplane says of the wire: to the client by its mechanism, and in our path segment."""
    set_fault(connection, live.fault)
    if live.parameters and connection.mechanism is not None:
        connection.mechanism.parameters.update(live.parameters)
    if (metrics := live.metrics()) and connection.path is not None:
        connection.path.path_segments[connection.path.index].metrics.update(metrics)

"""The element that makes a local wire: a veth pair from the client's namespace to the endpoint's."""

from __future__ import annotations

import asyncio

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import INTERFACE_NAME, KERNEL
from nsm.chains.core import Call, Element, Handler, Key, Unsupported
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.logs import log

from .dataplane import Dataplane, Pair
from .ends import wire_of


class KernelWire(Element):
    """Make the pair when both sides are known, that is when the endpoint has answered; keep it in step afterwards.

    Stands in the server's chain before what asks the endpoint. A refresh that changes nothing touches nothing; a
    pair that vanished is made anew; a Close removes it in any case.
    """

    def __init__(self, dataplane: Dataplane, far_side: MechanismTranslation) -> None:
        self._dataplane, self._far_side = dataplane, far_side
        self._pair: Key[Pair] = Key("veth pair")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Let the endpoint answer, then make or change the pair."""
        connection = await rest.request(call)
        near, far = connection.mechanism, self._far_side.far_side(call)
        if near is None or far is None or far.type != KERNEL:
            raise Unsupported(f"the endpoint chose {far.type if far else 'no mechanism'}; a kernel wire ends in KERNEL")
        _note_interfaces(connection, near.parameters.get(INTERFACE_NAME), far.parameters.get(INTERFACE_NAME))
        wire = wire_of(connection, near, far)
        pair = call.live.get(self._pair)
        if pair is not None and not await self._still_fits(call, pair, wire.client, wire.endpoint):
            pair = None
        if pair is None:
            pair = await self._dataplane.create(wire, call.live.connection_id)
            call.live.put(self._pair, pair)
            call.undo.add(lambda: self._remove(call))
            log.info("wire made", connection=call.live.connection_id, ms=round(pair.seconds * 1000, 2))
        elif wire != pair.wire:
            await self._dataplane.change(pair, wire)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Remove the pair while those further on close: neither waits for the other, nor keeps it from being done."""
        results = await asyncio.gather(rest.close(call), self._remove(call), return_exceptions=True)
        for error in results:
            if error is not None:
                raise error

    async def aclose(self) -> None:
        """Stop; the wires stay."""
        await self._dataplane.aclose()

    async def _still_fits(self, call: Call, pair: Pair, client: object, endpoint: object) -> bool:
        """Whether the pair is there and where it should be; what is not is removed."""
        if (pair.wire.client, pair.wire.endpoint) == (client, endpoint) and await self._dataplane.exists(pair):
            return True
        await self._remove(call)
        return False

    async def _remove(self, call: Call) -> None:
        if (pair := call.live.pop(self._pair)) is not None:
            await self._dataplane.remove(pair)


def _note_interfaces(connection: Connection, near: str | None, far: str | None) -> None:
    """Tell in our path segment how the wire's ends are called."""
    if connection.path is not None:
        metrics = connection.path.path_segments[connection.path.index].metrics
        metrics.setdefault("server_interface", f"{KERNEL}/{near or 'unknown'}")
        metrics.setdefault("client_interface", f"{KERNEL}/{far or 'unknown'}")

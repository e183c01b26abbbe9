"""Several dataplanes in one forwarder: each makes the wires that are for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from nsm.chains.model.traffic import Traffic

from .dataplane import NOBODY, Client, Dataplane, LiveWire, Owned
from .wires import Wire

Fits = Callable[[Wire], bool]
"""Whether a dataplane is to make a wire, by its sides."""


class Combined:
    """A `Dataplane` of several: the first one that fits makes a wire, and has it until it is removed.

    Tunnels, uplinks and WireGuard are asked of the one that has them, by its elements. A wire whose sides have
    changed, so that another one fits, is made anew there.
    """

    def __init__(self, choices: Sequence[tuple[Fits, Dataplane[Any]]], otherwise: Dataplane[Any]) -> None:
        self._choices, self._otherwise = choices, otherwise
        self._all = [*(dataplane for _, dataplane in choices), otherwise]
        self._makers: dict[str, Dataplane[Any]] = {}

    def choose(self, wire: Wire) -> Dataplane[Any]:
        """The one that makes such wires."""
        return next((dataplane for fits, dataplane in self._choices if fits(wire)), self._otherwise)

    async def create(
        self, wire: Wire, connection_id: str, begun: Any | None = None, client: Client = NOBODY
    ) -> LiveWire:
        """Make a wire; what another one has of an earlier process for this connection is removed."""
        chosen = self.choose(wire)
        for dataplane in self._all:
            if dataplane is not chosen:
                await dataplane.remove_former([connection_id])
        live: LiveWire = await chosen.create(wire, connection_id, begun, client)
        self._makers[connection_id] = chosen
        return live

    async def resume(self, live: LiveWire, wire: Wire) -> bool:
        """Whether a wire still exists, and the same one is to make `wire`."""
        maker = self._makers.get(live.connection_id)
        return maker is not None and maker is self.choose(wire) and await maker.resume(live, wire)

    async def change(self, live: LiveWire, wire: Wire) -> None:
        """Set a wire."""
        await self._makers[live.connection_id].change(live, wire)

    async def let_go(self, live: LiveWire) -> None:
        """Keep no namespace open for a wire."""
        if (maker := self._makers.get(live.connection_id)) is not None:
            await maker.let_go(live)

    async def remove(self, connection_id: str) -> None:
        """Remove a wire; one that no connection here has may be anybody's."""
        maker = self._makers.pop(connection_id, None)
        for dataplane in self._all if maker is None else [maker]:
            await dataplane.remove(connection_id)

    async def owned(self) -> Sequence[Owned]:
        """The wires of all."""
        return [each for dataplane in self._all for each in await dataplane.owned()]

    async def remove_former(self, connection_ids: Collection[str]) -> None:
        """Remove wires of an earlier process, of whichever dataplane."""
        for dataplane in self._all:
            await dataplane.remove_former(connection_ids)

    async def traffic(self, wires: Sequence[LiveWire]) -> Sequence[tuple[Traffic | None, Traffic | None]]:
        """The traffic of wires, asked once of each dataplane."""
        found: dict[int, tuple[Traffic | None, Traffic | None]] = {}
        for dataplane in self._all:
            theirs = [number for number, each in enumerate(wires) if self._makers.get(each.connection_id) is dataplane]
            if theirs:
                counted = await dataplane.traffic([wires[number] for number in theirs])
                found |= zip(theirs, counted, strict=True)
        return [found.get(number, (None, None)) for number in range(len(wires))]

    async def aclose(self) -> None:
        """Stop all; the wires stay."""
        for dataplane in self._all:
            await dataplane.aclose()

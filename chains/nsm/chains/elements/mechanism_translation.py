"""Keeps the two sides of a forwarder apart: the client's mechanism is not the endpoint's."""

from __future__ import annotations

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.chains.core import Call, Element, Handler, Key, Store


class MechanismTranslation(Element):
    """For a client chain: request the mechanism that was chosen on the far side before, and no other yet.

    Elements behind it add the mechanisms of this component. The answer has the near side's mechanism again.
    """

    def __init__(self) -> None:
        self._near: Key[Mechanism] = Key("mechanism of the near side")
        self._far: Key[Mechanism] = Key("mechanism of the far side")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Swap the mechanisms, and swap back."""
        near, known = call.connection.mechanism, call.live.get(self._far)
        if near is not None:
            call.live.put(self._near, codec.clone(near))
        call.request.mechanism_preferences = []
        call.connection.mechanism = codec.clone(known) if known is not None else None
        connection = await rest.request(call)
        if connection.mechanism is not None:
            call.live.put(self._far, codec.clone(connection.mechanism))
        connection.mechanism = near
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Close with the far side's mechanism."""
        known = call.live.pop(self._far)
        call.connection.mechanism = known
        await rest.close(call)

    def near_side(self, call: Call) -> Mechanism | None:
        """The mechanism on the side of the client: it stays unchanged while the far side is requested."""
        return call.live.get(self._near)

    def far_side(self, call: Call) -> Mechanism | None:
        """The mechanism that was chosen on the far side of the call's connection."""
        return self.kept(call.live)

    def kept(self, store: Store) -> Mechanism | None:
        """The mechanism of a connection outside of a call."""
        return store.get(self._far)

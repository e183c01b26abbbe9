"""Continues a registry server's chain with a client chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from nsm.chains.core import Found, Key, R, RegistryCall, RegistryElement, RegistryHandler


class RegistryConnect(RegistryElement[R]):
    """Call `client` first, then let the rest of the server's chain process its result.

    If a first Register fails afterwards, it is unregistered at `client`.
    """

    def __init__(self, client: RegistryHandler[R]) -> None:
        self._client = client
        self._open: Key[bool] = Key("connected")

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Register with the client chain, then with the rest."""
        onward = call.onward()
        record = await self._client.register(onward)
        if not call.live.get(self._open):
            call.undo.add(lambda: self._client.unregister(call.postponed()))
        call.live.put(self._open, True)
        call.record = record
        return await rest.register(call)

    async def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Find through the client chain."""
        onward = call.onward()
        async for batch in self._client.find(onward):
            yield batch

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Unregister from both."""
        try:
            call.live.pop(self._open)
            await self._client.unregister(call.onward())
        finally:
            await rest.unregister(call)

"""Sets the registry that a client calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from nsm.chains.core import Found, R, RegistryCall, RegistryElement, RegistryHandler


class RegistryClientUrl(RegistryElement[R]):
    """Call the registry at a fixed URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Set the target."""
        call.target = self._url
        return await rest.register(call)

    def find(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> AsyncIterator[Sequence[Found[R]]]:
        """Set the target."""
        call.target = self._url
        return rest.find(call)

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Set the target."""
        call.target = self._url
        await rest.unregister(call)

"""Starts an endpoint for a client that no endpoint serves yet."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Protocol

from nsm.apis.connection import Connection
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Call, Element, Handler, RegistryCall, RegistryHandler, Unavailable
from nsm.chains.logs import log

_LEFT_TO_ANSWER = 0.5
"""Seconds of the caller's time that are left when waiting for the endpoint ends."""


class Supplier(Protocol):
    """Starts endpoints."""

    async def supply(self, connection: Connection) -> str:
        """Start an endpoint for `connection`, unless that was done before; returns its name.

        Raises `MeshError` if that is impossible.
        """
        ...


class Supply(Element):
    """Start an endpoint for each request, wait until it is registered, and have the request repeated.

    The answer is always `Unavailable`, with the endpoint's name: the client's next request finds the endpoint by the
    matches of the service, which name the supplier last. `registry` is searched for the endpoint.
    """

    def __init__(self, supplier: Supplier, registry: RegistryHandler[NetworkServiceEndpoint]) -> None:
        self._supplier, self._registry = supplier, registry

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Start an endpoint; `rest` is never reached."""
        name = await self._supplier.supply(call.connection)
        remaining = call.remaining()
        try:
            async with asyncio.timeout(None if remaining is None else max(0.0, remaining - _LEFT_TO_ANSWER)):
                await self._until_registered(name)
        except TimeoutError:
            raise Unavailable(f"the endpoint {name!r} is being started; request again") from None
        raise Unavailable(f"the endpoint {name!r} was started for this request; request again")

    async def _until_registered(self, name: str) -> None:
        query = RegistryCall(NetworkServiceEndpoint(name=name), watch=True)
        async with aclosing(self._registry.find(query)) as found:  # type: ignore[type-var]  # it is a generator
            async for batch in found:
                if any(each.record.name == name and not each.deleted for each in batch):
                    log.info("an endpoint was started for a client", endpoint=name)
                    return

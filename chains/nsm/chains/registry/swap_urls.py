"""Registers endpoints under addresses that other domains can reach."""

from __future__ import annotations

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.config.table import Table, outside
from nsm.chains.core import RegistryCall, RegistryElement, RegistryHandler

Endpoint = NetworkServiceEndpoint


class SwapUrls(RegistryElement[NetworkServiceEndpoint]):
    """Register an endpoint under the outside address of its URL's host, according to `table`.

    A host that the table does not list stays. The caller gets its own URL back.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    async def register(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> Endpoint:
        """Swap the host on the way out, and back in the answer."""
        own, call.record.url = call.record.url, outside(call.record.url, self._table)
        record = await rest.register(call)
        record.url = own
        return record

    async def unregister(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> None:
        """Swap the host."""
        call.record.url = outside(call.record.url, self._table)
        await rest.unregister(call)

"""Registers endpoints under addresses that other domains can reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.config.address import Address, parse_address
from nsm.chains.core import InvalidRequest, RegistryCall, RegistryElement, RegistryHandler

Endpoint = NetworkServiceEndpoint


class AddressTable(Protocol):
    """A table of addresses, from inside to outside, that may change."""

    def value(self) -> Mapping[str, str]:
        """The current table."""
        ...


class SwapUrls(RegistryElement[NetworkServiceEndpoint]):
    """Register an endpoint under the outside address of its URL's host, according to `table`.

    A host that the table does not list stays. The caller gets its own URL back.
    """

    def __init__(self, table: AddressTable) -> None:
        self._table = table

    async def register(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> Endpoint:
        """Swap the host on the way out, and back in the answer."""
        own, call.record.url = call.record.url, self._outside(call.record.url)
        record = await rest.register(call)
        record.url = own
        return record

    async def unregister(self, call: RegistryCall[Endpoint], rest: RegistryHandler[Endpoint]) -> None:
        """Swap the host."""
        call.record.url = self._outside(call.record.url)
        await rest.unregister(call)

    def _outside(self, url: str) -> str:
        return outside(url, self._table.value())


def outside(url: str, table: Mapping[str, str]) -> str:
    """`url` with the outside address of its host, if `table` has one."""
    try:
        address = parse_address(url)
    except InvalidRequest:
        return url
    if address.is_unix or address.host not in table:
        return url
    return str(Address(host=table[address.host], port=address.port))

"""DNS of a wire: an endpoint names the servers for its names, and a client uses them while the wire is up."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import DnsConfig, DnsContext
from nsm.chains.core import Call, Element, Handler, Key
from nsm.chains.model.ipcontext import context_of


class DnsContextServer(Element):
    """For an endpoint: add `configs` to the DNS context of every connection, each once."""

    def __init__(self, configs: Sequence[DnsConfig]) -> None:
        self._configs = tuple(configs)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Add the missing ones."""
        if self._configs:
            present = _context(call.connection).configs
            present.extend(codec.clone(config) for config in self._configs if config not in present)
        return await rest.request(call)


class Resolver(Protocol):
    """Resolves names for a workload."""

    async def use(self, connection_id: str, configs: Sequence[DnsConfig]) -> None:
        """Use these servers from now on, instead of the connection's earlier ones."""
        ...

    async def forget(self, connection_id: str) -> None:
        """Stop using the servers of a connection; does nothing if there are none."""
        ...

    async def aclose(self) -> None:
        """Forget all servers, and restore the workload's own settings."""
        ...


class DnsContextClient(Element):
    """For a client: names are resolved by the servers of a connection for as long as it lives."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._used: Key[bool] = Key("DNS configuration in use")

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Hand over the answer's servers, also if it has none any longer."""
        connection = await rest.request(call)
        store, configs = call.live, _configs(connection)
        if configs and not store.get(self._used):
            store.put(self._used, True)
            store.on_end(partial(self._resolver.forget, store.connection_id))
        if store.get(self._used):
            await self._resolver.use(store.connection_id, configs)
        return connection

    async def close(self, call: Call, rest: Handler) -> None:
        """Forget them first: the rest may take long, and a wire that is being closed must not be used for names."""
        try:
            await self._resolver.forget(call.live.connection_id)
        finally:
            await rest.close(call)

    async def aclose(self) -> None:
        """Restore the workload's own settings."""
        await self._resolver.aclose()


def _context(connection: Connection) -> DnsContext:
    context = context_of(connection)
    if context.dns_context is None:
        context.dns_context = DnsContext()
    return context.dns_context


def _configs(connection: Connection) -> Sequence[DnsConfig]:
    context = connection.context.dns_context if connection.context is not None else None
    return context.configs if context is not None else ()

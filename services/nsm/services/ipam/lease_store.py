"""Where leases are kept, so that they survive a restart of the server."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from nsm.chains.core import MeshError
from nsm.chains.logs import log
from nsm.chains.model.addresses import Network
from nsm.services.registry.sqlite.database import Database
from nsm.services.registry.store_url import MemoryStore, SqliteStore, StoreUrl

_KIND = "prefix"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a prefix: a verified identity, and the endpoint's name if it sends one."""

    spiffe_id: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.spiffe_id})" if self.name else self.spiffe_id


class LeaseStore(Protocol):
    """Keeps who has which prefix."""

    async def load(self) -> Sequence[tuple[Network, Holder]]:
        """Everything that is kept. Raises `MeshError` if it cannot be read."""
        ...

    async def put(self, prefix: Network, holder: Holder) -> None:
        """Keep one. Raises `Unavailable` if that is not possible."""
        ...

    async def delete(self, prefix: Network) -> None:
        """Forget one. Raises `Unavailable` if that is not possible."""
        ...


class MemoryLeases:
    """Keeps nothing beyond the process: endpoints request their prefixes again."""

    async def load(self) -> Sequence[tuple[Network, Holder]]:
        """See `LeaseStore`."""
        return []

    async def put(self, prefix: Network, holder: Holder) -> None:
        """See `LeaseStore`."""

    async def delete(self, prefix: Network) -> None:
        """See `LeaseStore`."""


class SqliteLeases:
    """Keeps leases in an SQLite file, which several servers must not share."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> Sequence[tuple[Network, Holder]]:
        """See `LeaseStore`; a row that cannot be read is reported and left out."""
        found = []
        for row in await self._database.rows():
            if row.kind == _KIND:
                try:
                    found.append((ipaddress.ip_network(row.name), Holder(**json.loads(row.record))))
                except (ValueError, TypeError) as error:
                    log.error("a lease cannot be read and is left out", prefix=row.name, error=str(error))
        return found

    async def put(self, prefix: Network, holder: Holder) -> None:
        """See `LeaseStore`."""
        record = json.dumps({"spiffe_id": holder.spiffe_id, "name": holder.name}).encode()
        await self._database.put(_KIND, str(prefix), 0.0, record, _ignore)

    async def delete(self, prefix: Network) -> None:
        """See `LeaseStore`."""
        await self._database.delete(_KIND, str(prefix), _ignore)


def lease_store_url(value: StoreUrl) -> StoreUrl:
    """Accept the stores that leases can be in. Raises ValueError."""
    if not isinstance(value, MemoryStore | SqliteStore):
        raise ValueError("expected memory: or sqlite:///PATH")
    return value


@asynccontextmanager
async def opened(url: StoreUrl) -> AsyncIterator[LeaseStore]:
    """The store that `url` names. Raises `MeshError` if it cannot be opened."""
    match url:
        case MemoryStore():
            yield MemoryLeases()
        case SqliteStore(path):
            async with Database(path) as database:
                yield SqliteLeases(database)
        case _:
            raise MeshError("leases are kept in memory: or sqlite:///PATH")


def _ignore(_version: int) -> None:
    """The version of a row has no meaning here."""

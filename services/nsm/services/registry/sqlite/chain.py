"""The registry in a file, composed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nsm.chains.composed import Registry, RegistrySettings, stored_registry
from nsm.chains.core import ENDPOINTS, SERVICES
from nsm.chains.identity import Identity

from .backend import Sqlite
from .database import Database


@asynccontextmanager
async def sqlite_registry(identity: Identity, settings: RegistrySettings, path: Path) -> AsyncIterator[Registry]:
    """A registry in the SQLite file at `path`, which is created if it is missing.

    Raises `MeshError` if it cannot be used: not such a file, not writable, or open in another process.
    """
    async with Database(path) as database:
        rows = await database.rows()
        services, endpoints = Sqlite(database, SERVICES, rows), Sqlite(database, ENDPOINTS, rows)
        async with stored_registry(identity, services, endpoints, settings) as registry:
            yield registry

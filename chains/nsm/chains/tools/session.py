"""What a command needs to talk to components: an identity from the Workload API, and a pool."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from nsm.chains import logs
from nsm.chains.core import MeshError, Unavailable
from nsm.chains.identity.source import identity_from
from nsm.chains.terminal import escaped
from nsm.chains.transport import Pool

_IDENTITY_TIMEOUT = 10.0


class NoIdentity(Unavailable):
    """The Workload API gives none: nobody was asked anything."""


def workload_api() -> str:
    """Where this process asks for its identity."""
    return os.environ.get("SPIFFE_ENDPOINT_SOCKET", "unix:///run/spire/sockets/agent.sock")


@asynccontextmanager
async def session(*, dial_timeout: float = 5.0) -> AsyncIterator[Pool]:
    """A pool with the identity that `SPIFFE_ENDPOINT_SOCKET` gives. Raises `NoIdentity` if it gives none."""
    asked = workload_api()
    source = identity_from(asked, token_lifetime=600)
    try:
        async with asyncio.timeout(_IDENTITY_TIMEOUT):
            identity = await source.__aenter__()
    except TimeoutError:
        raise NoIdentity(f"the Workload API at SPIFFE_ENDPOINT_SOCKET={asked!r} gives no identity") from None
    try:
        async with Pool(identity, dial_timeout=dial_timeout) as pool:
            yield pool
    finally:
        await source.__aexit__(None, None, None)


def run(command: str, work: Callable[[], Awaitable[int]]) -> int:
    """Run a command to its exit code; an error is one line."""
    logs.set_up(command, "WARNING")

    async def main() -> int:
        return await work()

    try:
        return asyncio.run(main())
    except MeshError as error:
        print(escaped(f"nsm {command}: {error}"), file=sys.stderr)
        return 1

"""What a command needs to call components: an identity from the Workload API, and a pool."""

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
    """The Workload API issues no identity, so no component was called."""


def workload_api() -> str:
    """The URL of the Workload API for this process."""
    return os.environ.get("SPIFFE_ENDPOINT_SOCKET", "unix:///run/spire/sockets/agent.sock")


@asynccontextmanager
async def session(*, dial_timeout: float = 5.0) -> AsyncIterator[Pool]:
    """A pool with the identity from `SPIFFE_ENDPOINT_SOCKET`. Raises `NoIdentity` if there is none."""
    asked = workload_api()
    source = identity_from(asked, token_lifetime=600)
    try:
        async with asyncio.timeout(_IDENTITY_TIMEOUT):
            identity = await source.__aenter__()
    except TimeoutError:
        raise NoIdentity(f"the Workload API at SPIFFE_ENDPOINT_SOCKET={asked!r} issues no identity") from None
    try:
        async with Pool(identity, dial_timeout=dial_timeout) as pool:
            yield pool
    finally:
        await source.__aexit__(None, None, None)


def run(command: str, work: Callable[[], Awaitable[int]]) -> int:
    """Run a command and return its exit code; an error is printed on one line."""
    logs.set_up(command, "WARNING")

    async def main() -> int:
        return await work()

    try:
        return asyncio.run(main())
    except MeshError as error:
        print(escaped(f"nsm {command}: {error}"), file=sys.stderr)
        return 1

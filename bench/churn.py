"""Connections that come and go by the thousand while clients give up and their channels break: what stays of it.

    python -m bench.churn [COUNT [SEED]]

All components are in this process, the wires are real. Counted are links, descriptors, tasks and entries of stores, and
the memory of the process.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from bench.leaks import Held, Mesh, components, held
from bench.start import resident_mib
from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains import logs
from nsm.chains.composed import client
from nsm.chains.core import Call, Chain, MeshError
from nsm.chains.elements.descriptors import SendDescriptors
from nsm.chains.elements.kernel import KernelClient
from nsm.chains.transport import Pool, RemoteNetworkService
from nsm.chains.transport.released import give_back

COUNT, WARM, AT_ONCE = 20_000, 500, 5
_LONGEST = 30.0
"""Seconds that all may take to be gone."""
_SOON = 0.03
"""Seconds after which a client gives up, or its channel breaks, at the latest."""


@dataclass
class Churn:
    """Clients of one mesh, each with a channel of its own."""

    mesh: Mesh
    dice: random.Random

    async def run(self, count: int) -> Counter[str]:
        """Have so many come and go; gives how many of them did what."""
        numbers, kinds = iter(range(count)), Counter[str]()
        ways = {self._orderly: 6, self._gives_up: 2, self._breaks_early: 1, self._breaks_and_comes_back: 1}

        async def worker() -> None:
            for _ in numbers:
                (way,) = self.dice.choices(list(ways), list(ways.values()))
                kinds[way.__name__.strip("_")] += 1
                await way(f"churn-{self.dice.getrandbits(64):x}")

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        return kinds

    async def _orderly(self, name: str) -> None:
        async with self._client() as (chain, _):
            await chain.request(_ask(name))
            await chain.close(_ask(name))

    async def _gives_up(self, name: str) -> None:
        async with self._client() as (chain, _):
            await self._while_it_asks(chain, name, lambda asking: asking.cancel())

    async def _breaks_early(self, name: str) -> None:
        async with self._client() as (chain, pool):
            await self._while_it_asks(chain, name, lambda _: self._cut(pool))

    async def _breaks_and_comes_back(self, name: str) -> None:
        async with self._client() as (chain, pool):
            await chain.request(_ask(name))
            self._cut(pool)
        await self._orderly(name)

    async def _while_it_asks(self, chain: Chain, name: str, harm: Callable[[asyncio.Task[Connection]], object]) -> None:
        """Do harm to a request; who has a connection all the same closes it."""
        asking = asyncio.create_task(chain.request(_ask(name)))
        await asyncio.wait([asking], timeout=self.dice.uniform(0, _SOON))
        harm(asking)
        with suppress(MeshError, asyncio.CancelledError):
            await asking
            await chain.close(_ask(name))

    def _cut(self, pool: Pool) -> None:
        protocol = pool.channel(self.mesh.manager)._protocol
        if protocol is not None:
            protocol.abort("it is cut")  # type: ignore[attr-defined]

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[tuple[Chain, Pool]]:
        async with Pool(self.mesh.client) as pool:
            own = [KernelClient(self.mesh.here), SendDescriptors()]
            yield client("client", own, RemoteNetworkService(pool), url=self.mesh.manager), pool


def _ask(name: str) -> Call:
    request = NetworkServiceRequest(connection=Connection(id=name, network_service="icmp"))
    return Call(request, deadline=asyncio.get_running_loop().time() + 15)


async def measure(count: int = COUNT, seed: int = 1) -> tuple[int, float]:
    """What stays of everything but memory, and MiB of that."""
    async with AsyncExitStack() as stack:
        mesh = await components(stack)
        churn = Churn(mesh, random.Random(seed))
        await churn.run(WARM)
        before, memory = await _settled(mesh, None)
        kinds = await churn.run(count)
        after, now = await _settled(mesh, before)
        print(f"of {count}: {dict(kinds)}; {before} then, {after} now", file=sys.stderr)
        return after - before, max(0.0, now - memory)


async def _settled(mesh: Mesh, before: Held | None) -> tuple[Held, float]:
    """What is held when nothing more goes away, or no more than before is."""
    last, end = await held(mesh), time.monotonic() + _LONGEST
    while before is not None and last - before and time.monotonic() < end:
        last = await held(mesh)
    give_back()
    return last, resident_mib(os.getpid())


if __name__ == "__main__":
    logs.set_up("bench", "ERROR")
    print(json.dumps(asyncio.run(measure(*map(int, sys.argv[1:])))))

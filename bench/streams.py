"""The monitor streams of a manager with a thousand connections and two neighbours: those it serves, those it follows.

python -m bench.streams [COUNT]
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from bench.leaks import components
from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains import logs
from nsm.chains.composed import client
from nsm.chains.composed.endpoint import monitors
from nsm.chains.core import Call
from nsm.chains.elements.descriptors import SendDescriptors
from nsm.chains.elements.heal import Heal
from nsm.chains.elements.kernel import KernelClient
from nsm.chains.transport import Methods, Pool, RemoteNetworkService
from nsm.chains.transport.rpc import MONITOR
from nsm.chains.transport.server import Incoming, Streaming

COUNT, AT_ONCE = 1_000, 10


class Streams:
    """The monitor streams that run, by who serves and who follows them."""

    def __init__(self) -> None:
        self.running = Counter[tuple[str, str]]()

    def counted(self, name: str, methods: Methods) -> Methods:
        """`methods` of the component `name`, with its monitor streams counted."""
        method = methods.get(MONITOR)
        if not isinstance(method, Streaming):
            return methods
        answer = method.answer

        async def monitor(selector: Any, incoming: Incoming) -> AsyncIterator[Sequence[Any]]:
            key = name, incoming.peer.spiffe_id.rpartition("/")[2] if incoming.peer is not None else ""
            self.running[key] += 1
            try:
                async for batch in answer(selector, incoming):
                    yield batch
            finally:
                self.running[key] -= 1

        return {**methods, MONITOR: replace(method, answer=monitor)}

    def of(self, name: str) -> int:
        """Those of one component."""
        return sum(number for key, number in self.running.items() if name in key)


async def measure(count: int = COUNT) -> int:
    """The streams of the manager when the client has so many connections through it."""
    streams = Streams()
    async with AsyncExitStack() as stack:
        mesh = await components(stack, streams.counted)
        pool = await stack.enter_async_context(Pool(mesh.client))
        own = [KernelClient(mesh.here), SendDescriptors()]
        heal = Heal(monitors(pool))
        chain = client("client", own, RemoteNetworkService(pool), url=mesh.manager, heal=heal)
        stack.push_async_callback(heal.aclose)
        numbers = iter(range(count))

        async def worker() -> None:
            for number in numbers:
                await chain.request(
                    Call(NetworkServiceRequest(connection=Connection(id=f"c{number}", network_service="icmp")))
                )

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        print(dict(+streams.running), file=sys.stderr)
        return streams.of("nsmgr")


if __name__ == "__main__":
    logs.set_up("bench", "ERROR")
    print(asyncio.run(measure(*map(int, sys.argv[1:]))))

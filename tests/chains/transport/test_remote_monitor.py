"""The monitor of another component, as its stream brings it."""

import asyncio
import gc
import weakref
from types import SimpleNamespace

from nsm.apis.connection import Connection, ConnectionEvent, MonitorScopeSelector
from nsm.chains.core import Limits
from nsm.chains.transport import RemoteMonitor


class OneBatch:
    """A channel whose stream brings all its events at once, and then nothing for as long as one waits."""

    def __init__(self, events):
        self.events = events

    async def stream(self, *_, **__):
        yield self.events
        await asyncio.get_running_loop().create_future()


async def test_a_quiet_stream_does_not_keep_what_it_has_brought():
    """The first state of a manager may be megabytes, and the next event days away."""
    channel = OneBatch([ConnectionEvent(connections={str(n): Connection(id=str(n))}) for n in range(3)])
    seen = [weakref.ref(each) for each in channel.events]
    pool = SimpleNamespace(channel=lambda _: channel, limits=Limits())
    events = RemoteMonitor(pool, "tcp://127.0.0.1:1").monitor(MonitorScopeSelector())
    assert [[*(await anext(events)).connections] for _ in range(3)] == [["0"], ["1"], ["2"]]
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    gc.collect()
    assert [each() for each in seen] == [None] * 3
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

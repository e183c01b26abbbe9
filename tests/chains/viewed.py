"""A mesh in memory with an operator, and what that operator receives from the manager."""

import asyncio
from contextlib import aclosing, asynccontextmanager

from nsm.apis.connection import MonitorScopeSelector
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.model.causes import attempt_in, cause_in
from nsm.chains.policy import IdPatterns, Trust
from nsm.chains.testing import Mesh
from nsm.chains.transport import RemoteMonitor


class ViewedMesh(Mesh):
    """A mesh with an operator, who may view all connections."""

    def __init__(self, **options):
        super().__init__(**options)
        viewers = IdPatterns(["spiffe://test.mesh/operator"])
        self.trust = Trust(intermediaries=self.trust.intermediaries, viewers=viewers)


def chain(prefix, *own):
    return [*own, Point2PointIpam([prefix]), Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()]


class Seen:
    """The events of the manager that an operator has received."""

    def __init__(self, events):
        self._events = events

    async def next(self):
        async with asyncio.timeout(300):
            event = await anext(self._events)
            while not event.connections:  # the end of the first state
                event = await anext(self._events)
        (connection,) = event.connections.values()
        return event.type, connection

    async def attempt(self):
        """The next event, which is about an attempt: its kind, the attempt, the cause, and the connection."""
        kind, connection = await self.next()
        metrics = connection.path.path_segments[connection.path.index].metrics
        return kind, attempt_in(metrics), cause_in(metrics), connection


@asynccontextmanager
async def seen_by(mesh, who, **options):
    remote = RemoteMonitor(mesh.pool(who), mesh.url("nsmgr"), in_parts=True, **options)
    async with aclosing(remote.monitor(MonitorScopeSelector())) as events:
        while (await anext(events)).connections:
            pass
        yield Seen(events)

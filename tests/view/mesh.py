"""A mesh in memory with a view of it."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.policy import IdPatterns
from nsm.chains.testing import Mesh
from nsm.view.sources import Watch
from nsm.view.state import State

VIEW = "view"


def elements(*own, prefix="10.8.0.0/24"):
    """The chain of an endpoint."""
    return [*own, Point2PointIpam([prefix]), Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()]


def mesh_with_viewers(**options):
    """A mesh whose managers show everything to the view."""
    mesh = Mesh(**options)
    mesh.trust = replace(mesh.trust, viewers=IdPatterns([f"spiffe://*/{VIEW}"]))
    return mesh


@asynccontextmanager
async def viewed(mesh):
    """The state that a view has of `mesh`, once its managers are found."""
    state = State()
    async with Watch(state, mesh.pool(VIEW), mesh.url("registry")):
        await until(lambda: [each.state for each in state.nodes()] == ["UP"] and state.domains()[0].state == "UP")
        yield state


async def until(holds, timeout=5.0):
    """Wait until `holds()` is true, and return what it returned."""
    async with asyncio.timeout(timeout):
        while not (found := holds()):
            await asyncio.sleep(0.005)
        return found

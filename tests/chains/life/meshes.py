"""A mesh in memory with one endpoint whose elements note what passes."""

import asyncio
from contextlib import asynccontextmanager

from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.testing import Mesh

NSMGR, FORWARDER, REGISTRY = "nsmgr", "forwarder", "registry"


def elements(*own, prefix="10.8.0.0/24"):
    """An endpoint's own part."""
    return [*own, Point2PointIpam([prefix]), Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()]


@asynccontextmanager
async def mesh_with(*own, services=("shop",), **options):
    """A mesh whose endpoint `shop` has the elements `own` before its others."""
    async with Mesh(**options) as mesh:
        await mesh.add_endpoint("shop", elements(*own), services=services)
        yield mesh


async def restart(mesh, *names):
    """Have components die, and start all of them again: managers before forwarders. Endpoints register again."""
    for name in names:
        await mesh.remove(name)
    for name in sorted(names, key=[REGISTRY, NSMGR, FORWARDER].index):
        await mesh.start(name)
    await asyncio.sleep(10)

"""Endpoints of the attacker's own: it registers a service, and answers what comes for it."""

import tempfile
from contextlib import asynccontextmanager, suppress

from nsm.chains.composed import endpoint
from nsm.chains.core import Refused, inode_url
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.transport import serve

from .attacker import endpoint_record, service_record


@asynccontextmanager
async def serving(attacker, methods, name="evil-endpoint", service="evil"):
    """`methods` of the attacker's are what `service` is provided by."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/endpoint.sock"
        async with serve([f"unix://{path}"], methods, attacker.identity, name=name):
            await attacker.register(service_record(service))
            made = await attacker.register(endpoint_record(name, service, url=inode_url(path)), files=[path])
            try:
                yield made
            finally:
                await attacker.unregister(made)
                with suppress(Refused):  # it may be that of another one, who provides it too
                    await attacker.unregister(service_record(service))


def like_others(attacker, *before, name="evil-endpoint", prefix="10.66.0.0/24"):
    """A chain as an honest endpoint has it, in the attacker's network; the elements `before` come first."""
    kernel = KernelServer(f"file://{attacker.network}")
    elements = [*before, Point2PointIpam([prefix]), Mechanisms({"KERNEL": [kernel]}), ReturnDescriptors()]
    return endpoint(name, attacker.identity, elements)

"""Whoever comes back takes over what stands under its own name, instead of being refused by it."""

import os
import socket

import pytest

from nsm.chains.composed import endpoints_client
from nsm.chains.core import Refused, RegistryCall
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.testing import Mesh
from nsm.chains.testing.calls import endpoint_record

from .meshes import FORWARDER, NSMGR, REGISTRY


async def register(mesh, identity, tmp_path, name="forwarder-node-1", service=FORWARDER, node="node-1"):
    """As the pod `identity` does, which then dies without a word."""
    path = f"{tmp_path}/{identity}.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        async with endpoints_client(mesh.url(NSMGR), mesh.pool(identity), [SendUrl()], timeout=2) as client:
            record = endpoint_record(name, service, url=f"unix://{path}", p2p="true", nodeName=node)
            try:
                await client.register(RegistryCall(record))
            finally:
                os.unlink(path)


@pytest.mark.parametrize("restarted", [[], [NSMGR], [NSMGR, REGISTRY]], ids="+".join)
async def test_the_next_pod_of_a_forwarder_has_its_name_at_once(restarted, tmp_path):
    """Also if manager and registry roll with it, so that nobody could unregister the former."""
    async with Mesh() as mesh:
        await register(mesh, "forwarder-a", tmp_path)
        for name in restarted:
            await mesh.remove(name)
        for name in reversed(restarted):
            await mesh.start(name)
        await register(mesh, "forwarder-b", tmp_path)
        with pytest.raises(Refused, match="was registered by spiffe://test.mesh/forwarder-b"):
            await register(mesh, "forwarder-c", tmp_path, node="node-2")


@pytest.mark.parametrize("restarted", [[], [NSMGR]], ids="+".join)
async def test_a_workload_takes_over_no_name(restarted, tmp_path):
    """Neither that of another workload, nor that of a forwarder."""
    async with Mesh() as mesh:
        await register(mesh, "victim", tmp_path, "of-the-victim", "shop")
        await register(mesh, "forwarder-a", tmp_path)
        for name in restarted:
            await mesh.remove(name)
            await mesh.start(name)
        for name, service in (("of-the-victim", "shop"), ("forwarder-node-1", "shop"), ("forwarder-node-1", FORWARDER)):
            with pytest.raises(Refused):
                await register(mesh, "thief", tmp_path, name, service)


async def test_a_forwarder_does_not_take_over_the_name_of_a_workload(tmp_path):
    async with Mesh() as mesh:
        await register(mesh, "victim", tmp_path, "of-the-victim", "shop")
        with pytest.raises(Refused, match="was registered by"):
            await register(mesh, "forwarder-a", tmp_path, "of-the-victim", "shop")

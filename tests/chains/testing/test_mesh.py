"""A mesh in memory: it does what a real one does, as far as chains are concerned."""

import asyncio

import pytest

from nsm.apis.connection import MonitorScopeSelector
from nsm.chains.core import Exhausted, NotFound, TimedOut, Unavailable
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.testing import Delay, Fail, Mesh, Record, call
from nsm.chains.transport import RemoteMonitor


def elements(*own, prefix="10.8.0.0/24"):
    return [*own, Point2PointIpam([prefix]), Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()]


async def test_a_client_gets_a_connection_by_way_of_manager_and_forwarder():
    record = Record()
    async with Mesh() as mesh:
        await mesh.add_endpoint("shop", elements(record), services=["shop"])
        client = mesh.add_client()
        connection = await client.request(call("c", "shop", timeout=5))
        assert [each.name for each in connection.path.path_segments] == ["client", "nsmgr", "forwarder", "shop"]
        assert connection.context.ip_context.src_ip_addrs == ["10.8.0.1/32"]
        assert connection.network_service_endpoint_name == "shop"
        assert record.last.peer.spiffe_id == "spiffe://test.mesh/forwarder"
        assert mesh.connections() == {"client": 1, "nsmgr": 1, "forwarder": 1, "shop": 1}
        await client.close(call("c"))
        assert mesh.connections() == {}


async def test_a_request_that_fails_at_an_endpoint_reads_as_in_a_real_mesh_and_leaves_nothing():
    async with Mesh() as mesh:
        await mesh.add_endpoint("shop", elements(Fail(Exhausted("no room"), None)), services=["shop"])
        client = mesh.add_client()
        with pytest.raises(Exhausted) as raised:
            await client.request(call("c", "shop", timeout=5))
        assert str(raised.value) == "nsmgr → forwarder → shop: no room (fail)"
        assert mesh.connections() == {}
        with pytest.raises(NotFound, match="nsmgr: network service 'gym' is not found"):
            await client.request(call("c", "gym", timeout=0.5))


async def test_labels_choose_among_endpoints_and_one_that_dies_is_not_reached_any_more():
    async with Mesh() as mesh:
        for name, prefix in (("one", "10.1.0.0/24"), ("two", "10.2.0.0/24")):
            await mesh.add_endpoint(name, elements(prefix=prefix), services=["shop"], site=name)
        client = mesh.add_client()
        chosen = [
            (await client.request(call(str(n), "shop", timeout=5))).network_service_endpoint_name for n in range(2)
        ]
        assert sorted(chosen) == ["one", "two"]
        await mesh.remove("two")
        with pytest.raises(Unavailable, match="nsmgr → forwarder: two: cannot reach "):
            await client.request(call("c", "shop", network_service_endpoint_name="two", timeout=5))


async def test_a_client_that_refreshes_stays_for_an_hour_and_one_that_is_gone_is_forgotten():
    async with Mesh() as mesh:
        record = Record()
        await mesh.add_endpoint("shop", elements(record), services=["shop"])
        stays, goes = mesh.add_client("stays", refresh=True), mesh.add_client("goes")
        await stays.request(call("a", "shop", timeout=5))
        await goes.request(call("b", "shop", timeout=5))
        await asyncio.sleep(3600)
        assert mesh.connections() == {"stays": 1, "goes": 1, "nsmgr": 1, "forwarder": 1, "shop": 1}
        assert len(record.requests) > 3600 / 600
        assert len(record.closes) == 1


async def test_a_stream_ends_when_the_component_that_answers_it_stops():
    async with Mesh() as mesh:
        await mesh.add_endpoint("shop", elements(), services=["shop"])
        client = mesh.add_client()
        await client.request(call("c", "shop", timeout=5))
        events = RemoteMonitor(mesh.pool("client"), mesh.url("shop")).monitor(MonitorScopeSelector())
        await anext(events)
        ended = asyncio.ensure_future(anext(events))
        await asyncio.sleep(1)
        assert not ended.done()
        await mesh.remove("shop")
        with pytest.raises(Unavailable, match="went away"):
            await ended


async def test_what_nobody_answers_in_time_is_a_timeout_and_is_taken_back():
    delay = Delay()
    delay.gate.clear()
    async with Mesh() as mesh:
        await mesh.add_endpoint("shop", elements(delay), services=["shop"])
        asked = asyncio.ensure_future(mesh.add_client().request(call("c", "shop", timeout=5)))
        await asyncio.sleep(1)
        assert delay.waiting == 1
        await asyncio.sleep(5)
        delay.gate.set()  # the Close that takes it back passes
        await asyncio.sleep(5)
        with pytest.raises(TimedOut, match="did not answer in time"):
            asked.result()
        assert (delay.waiting, mesh.connections()) == (0, {})

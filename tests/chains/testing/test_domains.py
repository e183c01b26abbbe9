"""Domains in memory: connections and registrations across two and three of them."""

from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.testing import Record, call
from nsm.chains.testing.domains import Domains


def elements(*own, prefix="10.8.0.0/24"):
    return [*own, Point2PointIpam([prefix]), Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()]


async def test_a_client_gets_a_connection_to_a_service_of_another_domain_in_eight_segments():
    record = Record()
    async with Domains("one", "two") as (one, two):
        await two.add_endpoint("shop", elements(record), services=["shop"])
        client = one.add_client()
        connection = await client.request(call("c", "shop@two", timeout=5))
        names = [each.name for each in connection.path.path_segments]
        assert names == [
            "client", "nsmgr", "forwarder", "nsmgr-proxy-one", "nsmgr-proxy-two", "nsmgr", "forwarder", "shop",
        ]  # fmt: skip
        assert connection.network_service == "shop@two"
        assert connection.network_service_endpoint_name == "shop@two"
        seen = record.last
        assert seen.connection.network_service == "shop"
        assert seen.origin == "spiffe://one/client"
        await client.close(call("c"))
        assert one.connections() == two.connections() == {}

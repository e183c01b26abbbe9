"""What a candidate answered that then failed is nothing to the next one."""

import pytest

from nsm.apis.connection import Mechanism
from nsm.chains.core import Begin, Chain, Element, Unavailable
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.testing import Fail, Mesh, Record, call

from .meshes import elements


class Refuse(Element):
    """Fails the first answer of an endpoint, as a wire that cannot be made does."""

    def __init__(self):
        self.refused = None

    async def request(self, call, rest):
        connection = await rest.request(call)
        name = connection.network_service_endpoint_name
        if self.refused in (None, name):
            self.refused = name
            raise Unavailable("the wire cannot be made")
        return connection


async def test_a_client_has_no_addresses_of_an_endpoint_that_failed_after_it_had_answered():
    """They are free again there, and somebody else's next."""
    async with Mesh(observers=[refuse := Refuse()]) as mesh:
        records = {}
        for number, name in enumerate(("one", "two")):
            records[name] = Record()
            own = elements(records[name], prefix=f"10.{number}.0.0/24")
            await mesh.add_endpoint(name, own, services=["shop"])
        connection = await mesh.add_client().request(call("c", "shop", timeout=5))
        failed, used = refuse.refused, connection.network_service_endpoint_name
        assert {failed, used} == {"one", "two"}
        expected = "10.0.0." if used == "one" else "10.1.0."
        ip = connection.context.ip_context
        assert len(ip.src_ip_addrs) == len(ip.dst_ip_addrs) == 1
        assert all(each.startswith(expected) for each in [*ip.src_ip_addrs, *ip.dst_ip_addrs])
        asked = records[used].requests[0].connection
        assert not asked.context.ip_context.src_ip_addrs
        assert failed not in {each.name for each in asked.path.path_segments}
        assert failed not in mesh.connections()


@pytest.mark.parametrize("count", [1, 2])
async def test_nor_of_a_mechanism_that_failed(count):
    ipam = Point2PointIpam(["10.8.0.0/24"])
    record = Record()
    chain = Chain([Begin(), Mechanisms({"A": [ipam, Fail(Unavailable("no"))], "B": []}), record])
    wanted = [Mechanism(cls="LOCAL", type=each) for each in "AB"[:count]]
    if count == 1:
        with pytest.raises(Unavailable):
            await chain.request(call("c", preferences=wanted))
    else:
        connection = await chain.request(call("c", preferences=wanted))
        assert connection.mechanism.type == "B"
        assert connection.context is None

"""The wire from an endpoint of a vL3 to an older one."""

import asyncio

import pytest

from nsm.apis.connectioncontext import ConnectionContext, IpContext, Route
from nsm.chains.core import Begin, Chain, Conflict, Element, Unavailable, reselect_everything
from nsm.chains.elements.vl3_client import Vl3Client
from nsm.chains.elements.vl3_network import Vl3Network
from nsm.chains.testing import Record, call
from tests.chains.elements.vl3 import network, share


class Answer(Element):
    """Another endpoint, which has this prefix."""

    def __init__(self, prefix="172.16.0.0/24", *more):
        self.prefix, self.more = prefix, more

    async def request(self, call, rest):
        own = share(self.prefix).own
        context = call.connection.context.ip_context
        context.dst_ip_addrs = [f"{own}/32"]
        context.src_routes = [Route(f"{own}/32", str(own)), Route(self.prefix, str(own)), *self.more]
        return await rest.request(call)


def ask(chain, name="vl3-1", **ip):
    context = ConnectionContext(ip_context=IpContext(**ip))
    return chain.request(call("c", "vl3", network_service_endpoint_name=name, context=context))


async def test_it_brings_its_own_address_and_the_route_to_its_prefix():
    chain = Chain([Begin(), Vl3Client(network("172.16.3.0/24", "2001:db8:0:3::/64")), Answer()])
    context = (await ask(chain, src_ip_addrs=["10.0.0.1/32"])).context.ip_context
    assert context.src_ip_addrs == ["172.16.3.0/32", "2001:db8:0:3::/128"]
    assert [(route.prefix, route.next_hop) for route in context.dst_routes] == [
        ("172.16.3.0/32", "172.16.3.0"),
        ("172.16.3.0/24", "172.16.3.0"),
        ("2001:db8:0:3::/128", "2001:db8:0:3::"),
        ("2001:db8:0:3::/64", "2001:db8:0:3::"),
    ]


async def test_whoever_heals_it_requests_the_same_endpoint():
    begin, seen = Begin(), Record()
    chain = Chain([begin, Vl3Client(network("172.16.3.0/24")), seen])
    await ask(chain, "vl3-1")
    (store,) = begin.stores()
    await store.events.request(reselect=reselect_everything)
    assert [each.connection.network_service_endpoint_name for each in seen.requests] == ["vl3-1", "vl3-1"]


async def test_a_change_of_the_prefix_is_requested_at_once():
    net, seen = network("172.16.3.0/24"), Record()
    chain = Chain([Begin(), Vl3Client(net), seen])
    await ask(chain)
    net.set(0, share("172.16.5.0/24"))
    await asyncio.sleep(1)
    assert [each.connection.context.ip_context.src_ip_addrs for each in seen.requests] == [
        ["172.16.3.0/32"],
        ["172.16.5.0/32"],
    ]


@pytest.mark.parametrize("theirs", ["172.16.3.0/24", "172.16.3.128/25", "172.16.2.0/23"])
async def test_an_endpoint_whose_prefix_overlaps_this_one_s_is_refused(theirs):
    chain = Chain([Begin(), Vl3Client(network("172.16.3.0/24")), Answer(theirs)])
    with pytest.raises(Conflict, match=r"vl3-1 has .* shares addresses with this endpoint's 172\.16\.3\.0/24"):
        await ask(chain)


async def test_upstream_s_route_to_the_whole_network_is_fine():
    answer = Answer("172.16.0.0/24", Route("172.16.0.0/16", "172.16.0.0"))
    chain = Chain([Begin(), Vl3Client(network("172.16.3.0/24")), answer])
    assert (await ask(chain)).context.ip_context.dst_ip_addrs == ["172.16.0.0/32"]


async def test_before_the_prefix_is_known_nothing_is_requested():
    with pytest.raises(Unavailable, match="has no prefix yet"):
        await ask(Chain([Begin(), Vl3Client(Vl3Network(1))]))

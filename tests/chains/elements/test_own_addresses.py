"""What an endpoint's end of a wire is set to, whatever the client sends along."""

import ipaddress

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, IpContext, IpNeighbor, PolicyRoute, Route
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, Unavailable
from nsm.chains.elements.own_addresses import OwnAddresses
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.elements.policy_routing import PolicyRouting
from nsm.chains.elements.strict_ipam import StrictIpam
from nsm.chains.model.networks import NO_NETWORKS, Networks

UNDERLAY = Networks([ipaddress.ip_network("10.244.0.0/16")])


class Gives(Element):
    """Routes of an endpoint's own; fails while told to."""

    def __init__(self, *routes):
        self.routes, self.fails = routes, False

    async def request(self, call, rest):
        if self.fails:
            raise Unavailable("no")
        context = call.connection.context.ip_context
        context.dst_routes += [Route(prefix=each) for each in self.routes if each not in prefixes(context.dst_routes)]
        return await rest.request(call)


def endpoint_of(*elements, allowed=NO_NETWORKS):
    return Chain([Begin(), OwnAddresses(elements, allowed, lambda: UNDERLAY), *elements])


def ipam(*pools):
    return Point2PointIpam(pools or ["10.0.0.0/24"])


async def ask(chain, connection_id="c", context=None, **fields):
    ip = codec.clone(context) if context is not None else IpContext()
    for name, value in fields.items():
        setattr(ip, name, value)
    request = NetworkServiceRequest(connection=Connection(id=connection_id, context=ConnectionContext(ip_context=ip)))
    return (await chain.request(Call(request))).context.ip_context


async def close(chain, connection_id):
    await chain.close(Call(NetworkServiceRequest(connection=Connection(id=connection_id))))


def prefixes(routes):
    return [route.prefix for route in routes]


HOSTILE = [
    "8.8.8.8/32", "2001:4860:4860::8888/128", "127.0.0.1/32", "::1/128", "224.0.0.1/32", "ff02::1/128", "0.0.0.0/32",
    "169.254.169.254/32", "fe80::1/128", "255.255.255.255/32", "10.244.0.7/32", "192.168.0.1/24", "10.0.0.0/8",
    "172.16.0.1/0", "::/0", "10.0.0.99/32", "10.96.0.10/32",
]  # fmt: skip


@pytest.mark.parametrize("address", HOSTILE)
@pytest.mark.parametrize("side", ["src_ip_addrs", "dst_ip_addrs"])
async def test_an_address_that_a_client_may_not_bring_is_not_installed_at_the_endpoint(address, side):
    routes = [Route(prefix=address), Route(prefix="0.0.0.0/0"), Route(prefix="10.96.0.0/12", next_hop="10.0.0.1")]
    fields = {side: [address], "dst_routes": routes, "excluded_prefixes": ["10.96.0.0/12"]}
    context = await ask(endpoint_of(ipam()), **fields)
    assert context.src_ip_addrs == ["10.0.0.1/32"]
    assert context.dst_ip_addrs == ["10.0.0.0/32"]
    assert prefixes(context.dst_routes) == ["10.0.0.1/32"]


async def test_a_client_keeps_the_addresses_of_an_endpoint_that_is_gone():
    chain = endpoint_of(ipam("172.16.1.102/31"))
    former = {"src_ip_addrs": ["172.16.1.101/32"], "dst_ip_addrs": ["172.16.1.100/32"],
              "src_routes": [Route(prefix="172.16.1.100/32")], "dst_routes": [Route(prefix="172.16.1.101/32")]}  # fmt: skip
    context = await ask(chain, **former)
    assert context.src_ip_addrs == ["172.16.1.101/32", "172.16.1.103/32"]
    assert context.dst_ip_addrs == ["172.16.1.100/32", "172.16.1.102/32"]
    assert prefixes(context.dst_routes) == ["172.16.1.101/32", "172.16.1.103/32"]
    assert await ask(chain, context=context) == context


async def test_another_clients_address_is_never_taken_over():
    chain = endpoint_of(ipam())
    first = await ask(chain, "first")
    second = await ask(chain, "second", src_ip_addrs=first.src_ip_addrs, dst_ip_addrs=first.src_ip_addrs, dst_routes=first.dst_routes)  # fmt: skip
    assert second.src_ip_addrs == ["10.0.0.3/32"]
    assert (second.dst_ip_addrs, prefixes(second.dst_routes)) == (["10.0.0.2/32"], ["10.0.0.3/32"])
    assert await ask(chain, "first", first) == first


async def test_an_address_that_one_client_brought_another_one_cannot_bring_until_it_is_gone():
    chain = endpoint_of(ipam())
    assert "172.16.1.1/32" in (await ask(chain, "a", src_ip_addrs=["172.16.1.1/32"])).src_ip_addrs
    assert "172.16.1.1/32" not in (await ask(chain, "b", src_ip_addrs=["172.16.1.1/32"])).src_ip_addrs
    await close(chain, "a")
    assert "172.16.1.1/32" in (await ask(chain, "b", src_ip_addrs=["172.16.1.1/32"])).src_ip_addrs
    await close(chain, "b")
    assert len(chain.elements[1]) == 0


async def test_an_endpoint_that_starts_again_gives_a_client_its_own_back_whatever_its_pools_are():
    """Also public ones, of several groups."""
    groups = ["8.8.8.0/31"], ["2001:4860::/64"]
    context = await ask(endpoint_of(*map(Point2PointIpam, groups)))
    again = await ask(endpoint_of(*map(Point2PointIpam, groups)), context=context)
    assert again == context
    assert context.src_ip_addrs == ["8.8.8.1/32", "2001:4860::1/128"]


async def test_own_routes_stay_also_after_a_restart_and_a_clients_do_not_become_own():
    gives = Gives("10.50.0.0/16")
    chain = endpoint_of(ipam(), gives)
    context = await ask(chain, dst_routes=[Route(prefix="10.60.0.0/16")])
    assert prefixes(context.dst_routes) == ["10.0.0.1/32", "10.50.0.0/16"]
    context.dst_routes.append(Route(prefix="10.60.0.0/16"))
    for each in (chain, endpoint_of(ipam(), Gives("10.50.0.0/16"))):
        assert prefixes((await ask(each, context=context)).dst_routes) == ["10.0.0.1/32", "10.50.0.0/16"]


async def test_addresses_of_policies_stay_over_refreshes_and_restarts(tmp_path):
    file = tmp_path / "policies.yaml"
    file.write_text("[{from: 172.16.2.201/24, proto: 6}]")

    def start():
        return endpoint_of(ipam(), PolicyRouting(str(file)))

    chain = start()
    context = await ask(chain)
    assert context.src_ip_addrs == ["10.0.0.1/32", "172.16.2.201/24"]
    assert await ask(chain, context=context) == context
    assert await ask(start(), context=context) == context


async def test_what_is_allowed_may_come_with_routes():
    chain = endpoint_of(ipam(), allowed=Networks.parse(["8.8.0.0/16"]))
    context = await ask(
        chain, src_ip_addrs=["8.8.8.8/24"], dst_routes=[Route(prefix="8.8.4.0/24"), Route(prefix="9.0.0.0/8")]
    )
    assert context.src_ip_addrs == ["8.8.8.8/24", "10.0.0.1/32"]
    assert prefixes(context.dst_routes) == ["8.8.4.0/24", "10.0.0.1/32"]


async def test_neighbors_of_others_are_not_told_and_policies_are_the_clients_own_affair():
    neighbors = [IpNeighbor(ip="10.0.0.9", hardware_address="02:00:00:00:00:01")]
    context = await ask(endpoint_of(ipam()), ip_neighbors=neighbors, policies=[PolicyRoute(proto="6")])
    assert context.ip_neighbors == []
    assert len(context.policies) == 1


async def test_strict_keeps_neither_addresses_nor_routes():
    pool = ipam()
    chain = endpoint_of(pool, StrictIpam([pool]))
    routes = [
        Route(prefix="0.0.0.0/0"),
        Route(prefix="10.77.0.0/16", next_hop="10.0.0.1"),
        Route(prefix="172.16.1.1/32"),
    ]
    context = await ask(chain, src_ip_addrs=["172.16.1.1/32", "10.0.0.1/0"], dst_routes=routes, src_routes=routes)
    assert (context.src_ip_addrs, context.dst_ip_addrs) == (["10.0.0.1/32"], ["10.0.0.0/32"])
    assert (prefixes(context.src_routes), prefixes(context.dst_routes)) == (["10.0.0.0/32"], ["10.0.0.1/32"])


async def test_a_refused_refresh_changes_nothing_of_what_is_in_use():
    gives = Gives()
    chain = endpoint_of(ipam(), gives)
    context = await ask(chain)
    gives.fails = True
    with pytest.raises(Unavailable):
        await ask(chain, context=context, src_ip_addrs=["172.16.9.9/32"])
    gives.fails = False
    assert await ask(chain, context=context) == context


async def test_what_a_client_brought_stays_when_its_wire_looks_like_a_network_of_the_endpoint():
    """The wire's interface has the client's address as a network, and not every forwarder says whose interface it is."""
    around = [ipaddress.ip_network("10.244.0.0/16")]
    element = OwnAddresses([pool := ipam()], underlay=lambda: Networks(around))
    chain = Chain([Begin(), element, pool])
    first = await ask(chain, src_ip_addrs=["10.9.9.9/32"])
    assert "10.9.9.9/32" in first.src_ip_addrs
    around.append(ipaddress.ip_network("10.9.9.9/32"))
    again = await ask(chain, context=first, excluded_prefixes=["10.1.0.0/16"], dst_routes=[])
    assert "10.9.9.9/32" in again.src_ip_addrs
    other = await ask(chain, "other", src_ip_addrs=["10.244.0.9/32"])
    assert "10.244.0.9/32" not in other.src_ip_addrs

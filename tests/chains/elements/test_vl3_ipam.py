"""`Vl3Ipam`: addresses and routes that an endpoint of a vL3 gives to clients, and to other endpoints."""

import pytest

from nsm.apis.connection import Path, PathSegment
from nsm.apis.connectioncontext import ConnectionContext, IpContext, IpNeighbor, Route
from nsm.chains.core import Conflict, Exhausted, InvalidRequest, Refused, Unavailable
from nsm.chains.elements.vl3_network import Vl3Network
from nsm.chains.testing import Fail, call
from tests.chains.elements.addresses import again, ask, close
from tests.chains.elements.vl3 import Registered, network, server, share


def routes(listed):
    return [(route.prefix, route.next_hop) for route in listed]


async def test_a_client_gets_an_address_and_routes_to_the_whole_network():
    context = await ask(server(network("172.16.0.0/24")))
    assert (context.src_ip_addrs, context.dst_ip_addrs) == (["172.16.0.1/32"], ["172.16.0.0/32"])
    assert routes(context.src_routes) == [
        ("172.16.0.0/32", "172.16.0.0"),
        ("172.16.0.0/24", "172.16.0.0"),
        ("172.16.0.0/16", "172.16.0.0"),
    ]
    assert routes(context.dst_routes) == [("172.16.0.1/32", "")]


async def test_a_client_has_both_families_if_there_are_two_prefix_services():
    context = await ask(server(network("172.16.3.0/24", "2001:db8:0:3::/64")))
    assert context.src_ip_addrs == ["172.16.3.1/32", "2001:db8:0:3::1/128"]
    assert context.dst_ip_addrs == ["172.16.3.0/32", "2001:db8:0:3::/128"]
    assert routes(context.dst_routes) == [("172.16.3.1/32", ""), ("2001:db8:0:3::1/128", "")]


async def test_the_route_to_the_network_is_the_last_one_where_upstream_s_endpoints_look_for_it():
    context = await ask(server(network("172.16.3.0/24")))
    assert routes(context.src_routes)[-1] == ("172.16.0.0/16", "172.16.3.0")


async def test_clients_keep_their_addresses_over_refreshes_and_return_them_with_a_close():
    chain = server(network("172.16.0.0/24"))
    context = await ask(chain, "a")
    assert await again(chain, context, "a") == context
    assert (await ask(chain, "b")).src_ip_addrs == ["172.16.0.2/32"]
    await close(chain, "a")
    assert (await ask(chain, "c")).src_ip_addrs == ["172.16.0.1/32"]


async def test_a_client_that_survives_a_restart_of_its_endpoint_keeps_its_address_and_nobody_else_gets_it():
    first = server(network("172.16.0.0/24"))
    context = await ask(first, "a")
    restarted = server(network("172.16.0.0/24"))
    assert await again(restarted, context, "a") == context
    assert (await ask(restarted, "b")).src_ip_addrs == ["172.16.0.2/32"]


async def test_a_client_that_moves_here_has_none_of_its_former_endpoint_s_addresses_and_routes():
    context = await ask(server(network("172.16.1.0/24")), "a")
    context.src_routes.append(Route("10.0.0.0/8", "172.16.1.0"))
    context.ip_neighbors.append(IpNeighbor(ip="172.16.1.0", hardware_address="02:00:00:00:00:01"))
    here = server(network("172.16.2.0/24"))
    moved = await again(here, context, "a")
    assert moved == await ask(server(network("172.16.2.0/24")), "fresh")


async def test_an_address_that_another_client_has_is_not_given_to_a_client_that_asks_for_it():
    chain = server(network("172.16.0.0/24"))
    context = await ask(chain, "a")
    assert (await again(chain, context, "b")).src_ip_addrs == ["172.16.0.2/32"]


async def test_what_a_client_excludes_it_does_not_get():
    chain = server(network("172.16.0.0/24"))
    context = await ask(chain, "a", excluded_prefixes=["172.16.0.0/30"])
    assert context.src_ip_addrs == ["172.16.0.4/32"]
    assert (await again(chain, context, "a", excluded_prefixes=["172.16.0.0/29"])).src_ip_addrs == ["172.16.0.8/32"]


async def test_what_the_prefix_service_excludes_no_client_gets():
    net = Vl3Network(1)
    net.set(0, share("172.16.0.0/24", excluded=["172.16.0.0/28"]))
    assert (await ask(server(net))).src_ip_addrs == ["172.16.0.16/32"]


async def test_a_failed_first_request_frees_the_address():
    fail = Fail(Unavailable("no"))
    chain = server(network("172.16.0.0/24"), fail)
    with pytest.raises(Unavailable):
        await ask(chain, "a")
    assert (await ask(chain, "b")).src_ip_addrs == ["172.16.0.1/32"]


async def test_an_endpoint_without_addresses_left_says_what_to_do():
    chain = server(network("172.16.0.0/30"))
    for number in range(3):
        await ask(chain, str(number))
    with pytest.raises(Exhausted, match=r"no address is left in 172\.16\.0\.0/30: start another endpoint, or have the"):
        await ask(chain, "one too many")


async def test_before_the_prefix_is_known_nobody_is_served():
    with pytest.raises(Unavailable, match="has no prefix yet"):
        await ask(server(Vl3Network(1)))


async def test_clients_get_new_addresses_when_the_prefix_changes():
    net = network("172.16.0.0/24")
    chain = server(net)
    before = await ask(chain, "a")
    net.set(0, share("172.16.9.0/24"))
    after = await again(chain, before, "a")
    assert (after.src_ip_addrs, after.dst_ip_addrs) == (["172.16.9.1/32"], ["172.16.9.0/32"])
    assert "172.16.0.0/24" not in [route.prefix for route in after.src_routes]


# --- other endpoints


def brought(prefix):
    """What another endpoint with this prefix brings."""
    own = share(prefix).own
    host = f"{own}/{own.max_prefixlen}"
    return {"src_ip_addrs": [host], "dst_routes": [Route(host, str(own)), Route(prefix, str(own))]}


async def test_another_endpoint_brings_its_prefix_and_gets_this_one_s():
    context = await ask(server(network("172.16.0.0/24")), "other-1", **brought("172.16.1.0/24"))
    assert (context.src_ip_addrs, context.dst_ip_addrs) == (["172.16.1.0/32"], ["172.16.0.0/32"])
    assert routes(context.src_routes) == [("172.16.0.0/32", "172.16.0.0"), ("172.16.0.0/24", "172.16.0.0")]
    assert routes(context.dst_routes) == [("172.16.1.0/32", ""), ("172.16.1.0/24", "172.16.1.0")]


async def test_a_client_cannot_bring_the_prefix_of_an_endpoint():
    """It would receive the packets for all clients of that one."""
    context = await ask(server(network("172.16.0.0/24")), "client", **brought("172.16.1.0/24"))
    assert context.src_ip_addrs == ["172.16.0.1/32"]
    assert routes(context.dst_routes) == [("172.16.0.1/32", "")]


async def test_two_endpoints_with_one_prefix_are_told_both():
    chain = server(network("172.16.0.0/24"))
    said = (
        r"other-1 has 172\.16\.0\.0/32, but this endpoint has 172\.16\.0\.0/24: each endpoint of a vL3 needs a prefix"
    )
    with pytest.raises(Conflict, match=said):
        await ask(chain, "other-1", **brought("172.16.0.0/24"))
    await ask(chain, "other-1", **brought("172.16.1.0/24"))
    with pytest.raises(Conflict, match=r"other-2 has 172\.16\.1\.0/32, but another endpoint has 172\.16\.1\.0/24"):
        await ask(chain, "other-2", **brought("172.16.1.0/24"))
    assert (await ask(chain, "a")).src_ip_addrs == ["172.16.0.1/32"]


@pytest.mark.parametrize("prefix", ["172.16.4.0/25", "172.16.4.128/25", "172.16.0.0/21"])
async def test_a_prefix_that_overlaps_another_one_is_refused_and_changes_nothing(prefix):
    """As of a prefix service that hands out part of a prefix that is in use, or one that contains it."""
    chain = server(network("172.16.4.0/24"))
    with pytest.raises(
        Conflict, match=r"but this endpoint has 172\.16\.4\.0/24: each endpoint of a vL3 needs a prefix"
    ):
        await ask(chain, "other-1", **brought(prefix))
    await ask(chain, "other-1", **brought("172.16.1.0/24"))
    with pytest.raises(Conflict, match=r"but another endpoint has 172\.16\.1\.0/24"):
        await ask(chain, "other-2", **brought("172.16.1.64/26"))
    assert (await ask(chain, "a")).src_ip_addrs == ["172.16.4.1/32"]


async def test_a_prefix_is_free_for_another_endpoint_when_its_owner_is_gone():
    chain = server(network("172.16.0.0/24"))
    await ask(chain, "other-1", **brought("172.16.1.0/24"))
    await close(chain, "other-1")
    assert (await ask(chain, "other-2", **brought("172.16.1.0/24"))).src_ip_addrs == ["172.16.1.0/32"]


async def test_an_endpoint_that_gets_another_prefix_keeps_its_connection():
    chain = server(network("172.16.0.0/24"))
    before = await ask(chain, "other-1", **brought("172.16.1.0/24"))
    after = await again(chain, before, "other-1", **brought("172.16.5.0/24"))
    assert after.src_ip_addrs == ["172.16.5.0/32"]
    assert routes(after.dst_routes) == [("172.16.5.0/32", ""), ("172.16.5.0/24", "172.16.5.0")]


async def test_an_endpoint_that_comes_back_under_another_id_replaces_its_earlier_connection():
    """As upstream's do, whose ids are random."""

    class OneEndpoint(Registered):
        async def endpoint_of(self, call):
            return "vl3-2"

    chain = server(network("172.16.0.0/24"), peers=OneEndpoint())
    for own_id in ("a", "b"):
        path = Path(index=1, path_segments=[PathSegment(id=own_id), PathSegment(id=f"here-{own_id}")])
        context = ConnectionContext(ip_context=IpContext(**brought("172.16.1.0/24")))
        connection = await chain.request(call(f"here-{own_id}", path=path, context=context))
        assert connection.context.ip_context.src_ip_addrs == ["172.16.1.0/32"]
    assert [store.connection_id for store in chain.elements[0].stores()] == ["here-b"]


async def test_an_endpoint_that_brings_nothing_is_refused():
    with pytest.raises(InvalidRequest, match=r"other-1 brings no address of 172\.16\.0\.0/16"):
        await ask(server(network("172.16.0.0/24")), "other-1", src_ip_addrs=["10.0.0.1/32"])


async def test_who_claims_to_be_an_endpoint_is_refused():
    class Strict(Registered):
        async def endpoint_of(self, call):
            raise Refused("vl3-2 was registered by somebody else")

    with pytest.raises(Refused, match="registered by somebody else"):
        await ask(server(network("172.16.0.0/24"), peers=Strict()), "x", **brought("172.16.1.0/24"))

"""Two wires of a client that both bring policies: which way a packet goes does not depend on which wire came first."""

import itertools

import pytest

from nsm.apis.connectioncontext import PolicyRoute, Route
from tests.system.forwarder_kernel.hosts import way
from tests.system.forwarder_kernel.policies import IPV4, IPV6, Echo, nothing_is_left, received, send

pytestmark = pytest.mark.system

ELSEWHERE = {4: "203.0.113.9", 6: "2001:db8::9"}
EVERYTHING = PolicyRoute(routes=[Route(prefix="0.0.0.0/0"), Route(prefix="::/0")])
INTERNAL = PolicyRoute(routes=[Route(prefix="172.16.9.0/24"), Route(prefix="fd09::/64")])


async def ask(connections, wants):
    """Ask for wires in an order; each has its place in the client's list."""
    for name, place, policies in wants:
        await connections.request(*policies, name=name, connection_id=f"client-{place}")


async def end(connections, wants):
    for _, place, _ in wants:
        await connections.close(f"client-{place}")


def ways(client, *addresses):
    return [way(client, address) for address in addresses]


@pytest.mark.parametrize("arrival", list(itertools.permutations([("two", 0, [INTERNAL]), ("one", 1, [EVERYTHING])])))
async def test_the_narrower_network_and_both_endpoints_are_reached_by_their_own_wires(mesh, connections, arrival):
    """One wire to an internal network, one to everything."""
    client, ends, _, _ = mesh
    await ask(connections, arrival)
    assert ways(client, IPV4["server"], IPV6["server"]) == ["two", "two"]
    assert ways(client, *ELSEWHERE.values()) == ["one", "one"]
    for name in ("one", "two"):
        assert ways(client, IPV4[name][1], IPV6[name][1]) == [name, name]
    for server, anywhere in ((IPV4["server"], "0.0.0.0"), (IPV6["server"], "::")):
        echoes = [Echo(end, server, [80]) for end in ends]
        send(client, anywhere, server, 80)
        assert received(echoes) == [[], [80]]
        for echo in echoes:
            echo.close()
    await end(connections, arrival)
    assert nothing_is_left(client)


@pytest.mark.parametrize("arrival", list(itertools.permutations([("two", 0, [EVERYTHING]), ("one", 1, [EVERYTHING])])))
async def test_of_two_that_lead_everywhere_the_first_of_the_clients_list_is_used(mesh, connections, arrival):
    client = mesh[0]
    await ask(connections, arrival)
    assert ways(client, *ELSEWHERE.values()) == ["two", "two"]
    await connections.close("client-0")
    assert ways(client, *ELSEWHERE.values()) == ["one", "one"]
    await connections.close("client-1")
    assert nothing_is_left(client)


SOME = [
    PolicyRoute(proto="17", dst_port="80", routes=[Route(prefix="172.16.9.0/28")]),
    PolicyRoute(proto="17", dst_port="80-90"),
    PolicyRoute(),
]
WIDER = [PolicyRoute(proto="17", routes=[Route(prefix="172.16.9.0/24"), Route(prefix="203.0.0.0/8")])]


@pytest.mark.parametrize("arrival", list(itertools.permutations([("two", 0, SOME), ("one", 1, WIDER)])))
async def test_the_longest_prefix_decides_also_between_policies_for_some_packets(mesh, connections, arrival):
    client = mesh[0]
    await ask(connections, arrival)

    def udp(address, port):
        (route,) = client.json("route", "get", address, "ipproto", "udp", "dport", str(port))
        return route["dev"]

    assert [udp(IPV4["server"], port) for port in (80, 85, 99)] == ["two", "one", "one"]
    assert [udp(ELSEWHERE[4], port) for port in (80, 99)] == ["one", "one"]
    assert [udp("192.0.2.1", port) for port in (80, 99)] == ["two", "two"]
    await end(connections, arrival)
    assert nothing_is_left(client)

"""Several addresses on a wire: from which one packets come that name none, at once and after changes."""

import itertools

import pytest

from nsm.apis.connectioncontext import Route
from nsm.forwarder_kernel.dataplane import Dataplane
from tests.system.forwarder_kernel.hosts import wire

pytestmark = pytest.mark.system

ADDRESSES = ["10.0.0.1/32", "10.7.0.1/32", "10.3.0.1/32", "fd00::1/128", "fd07::1/128", "fd03::1/128"]
ROUTES = [Route(prefix="203.0.113.0/24"), Route(prefix="2001:db8::/64")]
DST = ["10.9.0.0/32", "fd09::/128"]


def sources(host):
    """The addresses that the kernel puts into packets, of each family."""
    return [host.json("route", "get", to)[0]["prefsrc"] for to in ("203.0.113.9", "2001:db8::9")]


def listed(host):
    """All addresses of the wire's end that are not link-local, as the kernel lists them."""
    found = host.links()["nsm-1"]["addr_info"]
    return [f"{each['local']}/{each['prefixlen']}" for each in found if each["scope"] == "global"]


def of(hosts, addresses):
    return wire(*hosts, src_ip_addrs=list(addresses), dst_ip_addrs=DST, src_routes=ROUTES)


ORDERS = [
    [*four, *six]
    for four, six in zip(itertools.permutations(ADDRESSES[:3]), itertools.permutations(ADDRESSES[3:]), strict=True)
]


async def test_packets_come_from_the_first_address_of_the_connection(hosts, dataplane):
    """Whichever that is: at once, and when a refresh brings another order, or one more, or takes one away."""
    shorter = [[order[0], order[3]] for order in ORDERS[::2]]
    live = await dataplane.create(of(hosts, ORDERS[-1]), "c")
    for order in (*ORDERS, *itertools.chain.from_iterable(zip(shorter, ORDERS, strict=False)), *shorter):
        await dataplane.change(live, of(hosts, order))
        assert listed(hosts[0]) == order
        assert sources(hosts[0]) == [each.split("/")[0] for each in (order[0], order[len(order) // 2])]


async def test_a_forwarder_that_starts_again_puts_addresses_in_order(hosts):
    first, second = Dataplane("forwarder"), Dataplane("forwarder")
    await first.create(of(hosts, ORDERS[0]), "c")
    await first.aclose()
    await second.create(of(hosts, ORDERS[-1]), "c")
    assert listed(hosts[0]) == ORDERS[-1]
    await second.aclose()


async def test_an_only_address_is_replaced_and_the_routes_stay(hosts, dataplane):
    """With the last IPv4 address of a link the kernel drops its IPv4 routes."""
    one, other = (replaced(hosts, address) for address in ("10.0.0.1/32", "10.0.0.7/32"))
    live = await dataplane.create(one, "c")
    await dataplane.change(live, other)
    assert hosts[0].json("route", "get", "203.0.113.9")[0]["prefsrc"] == "10.0.0.7"


def replaced(hosts, address):
    return wire(*hosts, src_ip_addrs=[address], src_routes=ROUTES[:1])

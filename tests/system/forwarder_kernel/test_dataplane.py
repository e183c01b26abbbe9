"""Wires in real namespaces: what is made, changed, adopted, removed, and what is refused."""

import asyncio
import ipaddress
import os
import time
from dataclasses import replace

import pytest

from nsm.apis.connectioncontext import Route
from nsm.chains.core import Conflict, InvalidRequest
from nsm.chains.elements.kernel import KernelClient
from nsm.chains.forwarding.sides import Vxlan
from nsm.chains.forwarding.wires import End
from nsm.chains.netlink import Socket
from nsm.forwarder_kernel.dataplane import Dataplane
from tests.system.forwarder_kernel.hosts import Host, gone, wire

pytestmark = pytest.mark.system


@pytest.mark.parametrize("payload", ["IP", "ETHERNET"])
@pytest.mark.parametrize(
    ("src", "dst"),
    [
        (["10.0.0.1/32"], ["10.0.0.0/32"]),
        (["fd00::1/128"], ["fd00::/128"]),
        (["10.0.0.1/32", "fd00::1/128"], ["10.0.0.0/32", "fd00::/128"]),
    ],
)
async def test_the_first_packet_passes_both_ways_when_the_wire_is_made(hosts, dataplane, payload, src, dst):
    client, endpoint = hosts
    pair = await dataplane.create(wire(client, endpoint, payload, src_ip_addrs=src, dst_ip_addrs=dst), "c")
    for address in dst:
        assert client.pings(address.split("/")[0])
    for address in src:
        assert endpoint.pings(address.split("/")[0])
    assert ("NOARP" in client.links()["nsm-1"]["flags"]) == (payload == "IP")
    await dataplane.remove(pair.connection_id)
    assert client.links() == endpoint.links() == {}


async def test_a_wire_has_its_names_owner_mtu_routes_and_neighbors(hosts, dataplane):
    client, endpoint = hosts
    made = wire(client, endpoint, mtu=1400, src_routes=[Route(prefix="172.16.0.0/12"), Route(prefix="10.0.0.0/32")])
    await dataplane.create(made, "connection-7")
    link = client.links()["nsm-1"]
    assert link["ifalias"] == "nsm forwarder connection-7"
    assert link["mtu"] == endpoint.links()["nse-1"]["mtu"] == 1400
    routes = {route["dst"]: route for route in client.json("route")}
    assert routes["172.16.0.0/12"]["gateway"] == "10.0.0.0"
    assert "onlink" in routes["172.16.0.0/12"]["flags"]
    assert routes["10.0.0.0"]["scope"] == "link"
    assert {r["protocol"] for r in routes.values()} == {"110"}
    (neighbor,) = [n for n in client.json("neighbor") if n["dst"] == "10.0.0.0"]
    assert neighbor["lladdr"] == endpoint.links()["nse-1"]["address"]


async def test_a_change_removes_what_is_obsolete_and_touches_nothing_else(hosts, dataplane):
    client, endpoint = hosts
    before = wire(client, endpoint, src_routes=[Route(prefix="172.16.0.0/12"), Route(prefix="192.168.0.0/16")])
    pair = await dataplane.create(before, "c")
    index = client.links()["nsm-1"]["ifindex"]
    after = wire(
        client,
        endpoint,
        src_ip_addrs=["10.0.0.1/32", "10.0.0.9/32"],
        src_routes=[Route(prefix="172.16.0.0/12")],
        mtu=1300,
    )
    await dataplane.change(pair, after)
    link = client.links()["nsm-1"]
    assert (link["ifindex"], link["mtu"]) == (index, 1300)
    assert {a["local"] for a in link["addr_info"] if a["family"] == "inet"} == {"10.0.0.1", "10.0.0.9"}
    prefixes = {route["dst"] for route in client.json("route")}
    assert "172.16.0.0/12" in prefixes
    assert "192.168.0.0/16" not in prefixes
    await dataplane.change(pair, wire(client, endpoint))
    assert {a["local"] for a in client.links()["nsm-1"]["addr_info"] if a["family"] == "inet"} == {"10.0.0.1"}
    assert client.pings("10.0.0.0")


async def test_a_wire_that_was_deleted_by_somebody_is_noticed(hosts, dataplane):
    client, endpoint = hosts
    pair = await dataplane.create(wire(client, endpoint), "c")
    assert await dataplane.resume(pair, pair.wire)
    client.run("ip", "link", "delete", "nsm-1")
    assert not await dataplane.resume(pair, pair.wire)
    await dataplane.remove(pair.connection_id)
    assert dataplane.open_namespaces() == 0


@pytest.mark.parametrize("who", ["client", "endpoint"])
async def test_the_wire_of_a_pod_that_is_gone_ends_with_its_namespace_and_does_not_answer_pings(hosts, dataplane, who):
    """Nobody else had it any more: the pod was deleted, and what holds it is the forwarder."""
    stays, goes = hosts[0], Host()
    pair = await dataplane.create(wire(*((stays, goes) if who == "endpoint" else (goes, stays))), "c")
    os.close(goes.descriptor)
    assert stays.pings("10.0.0.0" if who == "endpoint" else "10.0.0.1")
    await dataplane.let_go(pair)
    await gone(stays.links)
    await dataplane.remove(pair.connection_id)
    assert dataplane.open_namespaces() == 0


async def test_an_endpoint_whose_namespace_somebody_else_has_keeps_its_wire(hosts, dataplane):
    """Its process starts again in a pod that lives, or the namespace has a name: packets pass, the interfaces stay."""
    client, endpoint = hosts
    made = wire(client, endpoint)
    pair = await dataplane.create(made, "c")
    before = client.links()["nsm-1"]["ifindex"], endpoint.links()["nse-1"]["ifindex"]
    for _ in range(2):
        await dataplane.let_go(pair)
        assert (pair.is_loose, dataplane.open_namespaces()) == (True, 0)
        assert client.pings("10.0.0.0")
        ((near, far),) = await dataplane.traffic([pair])
        assert (near.tx_bytes, near.rx_bytes) == (far.rx_bytes, far.tx_bytes)
        assert near.rx_packets > 0
        assert await dataplane.resume(pair, made)
        assert (pair.is_loose, dataplane.open_namespaces()) == (False, 2)
    await dataplane.change(pair, wire(client, endpoint, src_routes=[Route(prefix="172.16.0.0/12")]))
    assert (client.links()["nsm-1"]["ifindex"], endpoint.links()["nse-1"]["ifindex"]) == before
    await dataplane.remove(pair.connection_id)
    assert client.links() == endpoint.links() == {}


async def test_a_wire_that_was_let_go_is_not_taken_for_that_of_another_namespace(hosts, dataplane):
    client, endpoint = hosts
    other = Host()
    pair = await dataplane.create(wire(client, endpoint), "c")
    await dataplane.let_go(pair)
    assert not await dataplane.resume(pair, wire(client, other))
    await dataplane.remove(pair.connection_id)
    assert client.links() == endpoint.links() == {}
    assert dataplane.open_namespaces() == 0
    os.close(other.descriptor)


async def test_the_end_of_a_tunnel_that_was_let_go_can_be_removed(hosts, dataplane):
    """By the kernel's number for the namespace, whether that is still there or not."""
    client, lasting, passing = hosts[0], hosts[1], Host()
    local, remote = ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("127.0.0.2")
    for number, endpoint in enumerate((lasting, passing)):
        pair = wire(client, endpoint, "ETHERNET")
        tunnel = Vxlan(100 + number, local, 40000 + number, remote, 40000)
        live = await dataplane.create(replace(pair, client=End(tunnel)), f"c{number}")
        assert list(endpoint.links()) == ["nse-1"]
        await dataplane.let_go(live)
        if endpoint is passing:
            os.close(passing.descriptor)
        await dataplane.remove(live.connection_id)
    assert lasting.links() == {}
    assert dataplane.open_namespaces() == 0


async def test_a_forwarder_that_starts_again_adopts_its_wires_without_a_gap(hosts):
    client, endpoint = hosts
    first = Dataplane("forwarder")
    await first.create(wire(client, endpoint), "c")
    index = client.links()["nsm-1"]["ifindex"]
    await first.aclose()
    assert client.pings("10.0.0.0")
    second = Dataplane("forwarder")
    pair = await second.create(wire(client, endpoint), "c")
    assert client.links()["nsm-1"]["ifindex"] == index
    assert client.pings("10.0.0.0")
    await second.remove(pair.connection_id)
    assert client.links() == {}
    await second.aclose()


@pytest.mark.parametrize("names", [("nsm-1", "nse-2"), ("nsm-2", "nse-1")])
async def test_a_client_that_asks_anew_after_its_forwarder_was_killed_is_not_told_that_the_name_is_taken(hosts, names):
    """An endpoint that chose another name, or a path with other ids: the former wire is in the way of nobody."""
    client, endpoint = hosts
    first = Dataplane("forwarder")
    await first.create(wire(client, endpoint), "c")
    await first.aclose()
    second = Dataplane("forwarder")
    pair = await second.create(wire(client, endpoint, names=names), "other")
    assert (set(client.links()), set(endpoint.links())) == ({names[0]}, {names[1]})
    assert client.pings("10.0.0.0")
    await second.remove(pair.connection_id)
    await second.aclose()


async def test_a_forwarder_that_starts_again_replaces_what_it_made_for_the_connection_otherwise(hosts):
    """The endpoint named its end anew: the old wire would keep the client's name for ever."""
    client, endpoint = hosts
    first, second = Dataplane("forwarder"), Dataplane("forwarder")
    await first.create(wire(client, endpoint), "c")
    pair = await second.create(wire(client, endpoint, names=("nsm-1", "nse-2")), "c")
    assert (list(client.links()), list(endpoint.links())) == (["nsm-1"], ["nse-2"])
    assert client.pings("10.0.0.0")
    await second.remove(pair.connection_id)
    await first.aclose()
    await second.aclose()


async def test_a_name_that_is_taken_is_told_with_whose_it_is(hosts, dataplane):
    client, endpoint = hosts
    await dataplane.create(wire(client, endpoint), "one")
    with pytest.raises(Conflict, match="interface name 'nsm-1' is taken in namespace .*, by 'nsm forwarder one'"):
        await dataplane.create(wire(client, endpoint, names=("nsm-1", "nse-2")), "two")
    with pytest.raises(Conflict, match="interface name 'nse-1' is taken"):
        await dataplane.create(wire(client, endpoint, names=("nsm-2", "nse-1")), "two")
    assert set(client.links()) == {"nsm-1"}
    assert set(endpoint.links()) == {"nse-1"}


async def test_a_wire_that_cannot_be_configured_is_removed_again(hosts, dataplane):
    client, endpoint = hosts
    with pytest.raises(Exception, match="the kernel refused to add route"):
        await dataplane.create(
            wire(client, endpoint, src_routes=[Route(prefix="1.2.3.0/24", next_hop="10.0.0.1")]), "c"
        )
    assert client.links() == endpoint.links() == {}
    assert dataplane.open_namespaces() == 0


async def test_what_is_no_namespace_is_refused(hosts, dataplane, tmp_path):
    client, endpoint = hosts
    file = tmp_path / "file"
    file.touch()

    class NotOne:
        path = str(file)

    class Missing:
        path = "/proc/1/ns/nothing"

    with pytest.raises(InvalidRequest, match="is not a network namespace"):
        await dataplane.create(wire(client, NotOne), "c")
    with pytest.raises(InvalidRequest, match="there is no network namespace at /proc/1/ns/nothing"):
        await dataplane.create(wire(Missing, endpoint), "c")
    assert dataplane.open_namespaces() == 0


async def test_a_wire_whose_creation_is_cancelled_is_removed(hosts, dataplane):
    """The thread that makes it goes on, whatever happens to who waits."""
    import asyncio

    client, endpoint = hosts
    making = asyncio.create_task(dataplane.create(wire(client, endpoint), "c"))
    await asyncio.sleep(0)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert client.links() == endpoint.links() == {}
    assert dataplane.open_namespaces() == 0


async def test_many_wires_are_removed_together(hosts, dataplane):
    """One by one it would take the kernel a second; nothing is left, no namespace held."""
    import asyncio

    client, endpoint = hosts
    pairs = []
    for number in range(50):
        addresses = {"src_ip_addrs": [f"10.1.{number}.1/32"], "dst_ip_addrs": [f"10.1.{number}.2/32"]}
        pairs.append(
            await dataplane.create(wire(client, endpoint, names=(f"c{number}", f"e{number}"), **addresses), str(number))
        )
    begin = time.perf_counter()
    await asyncio.gather(*(dataplane.remove(pair.connection_id) for pair in pairs))
    print(
        f"50 wires removed in {(time.perf_counter() - begin) * 1000:.0f} ms; made in {[round(p.seconds * 1000, 1) for p in pairs[:5]]} ms"
    )
    assert client.links() == endpoint.links() == {}
    assert dataplane.open_namespaces() == 0
    assert time.perf_counter() - begin < 0.5


def test_a_client_names_its_own_namespace():
    assert KernelClient()._namespace == f"file:///proc/{os.getpid()}/ns/net"


async def test_a_workload_that_keeps_its_end_down_keeps_nobody_else_waiting(hosts, dataplane, monkeypatch):
    """It takes its own wire only."""
    client, endpoint = hosts
    settle = Socket.settle

    def kept_down(self, index, addresses, timeout, **options):
        if any(str(address) == "10.0.0.1" for address in addresses):
            time.sleep(timeout)
            return False
        return settle(self, index, addresses, timeout, **options)

    monkeypatch.setattr(Socket, "settle", kept_down)
    stubborn = asyncio.ensure_future(dataplane.create(wire(client, endpoint), "stubborn"))
    await asyncio.sleep(0.05)
    begin = time.monotonic()
    there = {"src_ip_addrs": ["10.0.0.3/32"], "dst_ip_addrs": ["10.0.0.2/32"]}
    other = await dataplane.create(wire(client, endpoint, names=("nsm-2", "nse-2"), **there), "other")
    assert time.monotonic() - begin < 1
    with pytest.raises(Conflict, match="'nsm-1' in namespace .* does not come up"):
        await stubborn
    assert set(client.links()) == {"nsm-2"}
    await dataplane.remove(other.connection_id)


async def test_hundreds_of_routes_are_set_in_parts_and_what_is_refused_is_named(hosts, dataplane):
    client, endpoint = hosts
    routes = [Route(prefix=f"10.{n >> 8}.{n & 255}.0/24", next_hop="10.0.0.0") for n in range(256, 1280)]
    live = await dataplane.create(wire(client, endpoint, src_routes=routes), "c")
    assert len([each for each in client.json("route") if each["dst"].endswith("/24")]) == len(routes)
    await dataplane.remove(live.connection_id)

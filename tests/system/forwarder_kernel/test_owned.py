"""What a forwarder owns can be asked of the kernel, and whoever comes back has it again."""

import asyncio
import os
import subprocess
import time
from contextlib import contextmanager

import pytest

from nsm.apis.connectioncontext import Route
from nsm.chains.core import Conflict
from nsm.chains.forwarding.dataplane import Client
from nsm.chains.forwarding.reconcile import Reconcile
from nsm.chains.forwarding.sides import Vxlan
from nsm.chains.model.segment_ids import make_id
from nsm.forwarder_kernel.dataplane import Dataplane
from tests.system.forwarder_kernel.hosts import gone, wire
from tests.system.forwarder_kernel.vxlan_ends import A, B, end_of, node

from .nodes import Host, Underlay, pinging

pytestmark = pytest.mark.system

SPIFFE = "spiffe://test.mesh/client"
OTHER = {"src_ip_addrs": ["10.0.0.3/32"], "dst_ip_addrs": ["10.0.0.2/32"]}


@pytest.fixture
def hosts():
    return Host(), Host()


@pytest.fixture
async def killed():
    """Makes dataplanes whose successors know nothing of them; they are stopped in the end."""
    made = []

    def make(owner="forwarder", **options):
        made.append(Dataplane(owner, **options))
        return made[-1]

    yield make
    for plane in made:
        await plane.aclose()


@contextmanager
def inside(*hosts):
    """A process in each meanwhile."""
    processes = [subprocess.Popen(["nsenter", f"--net={host.path}", "sleep", "60"]) for host in hosts]
    for host, process in zip(hosts, processes, strict=True):
        while not os.path.samefile(f"/proc/{process.pid}/ns/net", host.path):
            time.sleep(0.005)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def shown(owned):
    return {each.connection_id: (sorted(link.name for link in each.links), each.is_live) for each in owned}


async def test_what_it_owns_is_read_from_the_kernel_also_by_the_process_that_comes_after(hosts, killed):
    """In whichever namespace it is, a process or not; what is another forwarder's is not listed."""
    first, other = killed(), killed("forwarder-b")
    live = await first.create(wire(*hosts), "c")
    await other.create(wire(*hosts, names=("nsm-2", "nse-2"), **OTHER), "d")
    await first.let_go(live)
    assert shown(await first.owned()) == {"c": (["nse-1", "nsm-1"], True)}
    assert shown(await killed().owned()) == {"c": (["nse-1", "nsm-1"], False)}


async def test_a_close_removes_what_an_earlier_process_made(hosts, killed):
    """By the connection's id alone, rules of default routes included; what else there is stays."""
    client, endpoint = hosts
    first, rules = killed(), client.json("rule")
    every = {"src_routes": [Route("0.0.0.0/0")]}
    gone = await first.create(wire(client, endpoint, **every), "c")
    kept = await first.create(wire(client, endpoint, names=("nsm-2", "nse-2"), **OTHER), "d")
    for live in (gone, kept):
        await first.let_go(live)
    with inside(client):
        second = killed()
        await second.remove("c")
        await second.remove("unknown")
    assert set(client.links()) == {"nsm-2"}
    assert client.json("rule") == rules


async def test_two_interfaces_of_one_connection_never_stand_beside_each_other(planes, hosts):
    """Endpoint and forwarder were restarted: the endpoint's end has another name, or another number, from now on."""
    host, endpoint = node(Underlay(), A), hosts[1]
    one, other = Vxlan(7, A, 4789, B, 4789), Vxlan(8, A, 4789, B, 4789)
    dual = {"side": "endpoint"}
    for name, tunnel in (("nse-1", one), ("nse-2", one), ("nse-3", other), ("nse-3", one)):
        await planes(host).create(end_of(endpoint, name, tunnel, **dual), "c")
        assert list(endpoint.links()) == [name]
        assert endpoint.links()[name]["linkinfo"]["info_data"]["id"] == tunnel.vni


@pytest.mark.parametrize("has_process", [True, False])
async def test_what_nobody_claims_is_known_to_be_used_or_not_and_can_be_removed(hosts, killed, has_process):
    """Packets of a wire whose ends live go on, whoever was restarted."""
    client, endpoint = hosts
    first = killed()
    await first.let_go(await first.create(wire(client, endpoint), "c"))
    await first.let_go(await first.create(wire(client, endpoint, names=("nsm-2", "nse-2"), **OTHER), "claimed"))
    second = killed(claim_within=0)
    await second.create(wire(client, endpoint, names=("nsm-2", "nse-2"), **OTHER), "claimed")
    with inside(client, endpoint) if has_process else inside():
        used = {each.connection_id: each.is_used for each in await second.owned() if not each.is_live}
        assert used == {"c": has_process}
    await second.remove_former(["c", "claimed"])
    assert set(client.links()) == {"nsm-2"}


async def test_a_forwarder_that_starts_removes_by_itself_what_nobody_wants(hosts, killed):
    first = killed()
    await first.let_go(await first.create(wire(*hosts), "c"))
    async with Reconcile(killed(claim_within=0), claim_within=0, orphan_lifetime=60):
        await gone(hosts[0].links)
    assert hosts[1].links() == {}


async def test_a_client_that_comes_back_by_another_way_takes_the_place_of_its_own_wire(hosts, killed):
    """Its manager was killed with it, so that its connection has another id at the forwarder, which lived."""
    plane, ended = killed(), []
    client = Client((SPIFFE,), "nsc-0")
    before = await plane.create(wire(*hosts), "before", client=client)
    before.when_superseded = lambda: ended.append("before")
    after = await plane.create(wire(*hosts, names=("nsm-1", "nse-2")), "after", client=client)
    assert (set(hosts[0].links()), set(hosts[1].links())) == ({"nsm-1"}, {"nse-2"})
    assert hosts[0].pings("10.0.0.0")
    assert ended == ["before"]
    assert not await plane.resume(before, before.wire)
    await plane.remove("before")
    assert hosts[0].pings("10.0.0.0")
    await plane.remove(after.connection_id)
    assert plane.open_namespaces() == 0


@pytest.mark.parametrize(
    "other", [Client(("spiffe://test.mesh/other",), "nsc-0"), Client((SPIFFE,), "nsc-1"), Client()]
)
async def test_another_client_does_not_take_a_name(hosts, killed, other):
    plane = killed()
    await plane.create(wire(*hosts), "one", client=Client((SPIFFE,), "nsc-0"))
    with pytest.raises(Conflict, match="interface name 'nsm-1' is taken in"):
        await plane.create(wire(*hosts, names=("nsm-1", "nse-2")), "two", client=other)
    assert hosts[0].pings("10.0.0.0")


async def test_an_address_is_free_for_the_next_client_while_the_wire_of_the_former_one_is_removed(hosts, killed):
    """The endpoint frees it when it answers the Close, which takes the kernel longer."""
    client, endpoint = hosts
    newcomer, plane = Host(), killed()
    await plane.create(wire(client, endpoint), "one", client=Client((SPIFFE,), "nsc-0"))
    removing = asyncio.ensure_future(plane.remove("one"))
    await asyncio.sleep(0)
    stranger = Client(("spiffe://test.mesh/other",), "nsc-0")
    await plane.create(wire(newcomer, endpoint, names=("nsm-1", "nse-2")), "two", client=stranger)
    await removing
    assert newcomer.pings("10.0.0.0")


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_an_address_that_another_client_has_is_refused_and_that_one_loses_nothing(hosts, killed, is_restarted):
    """The endpoint was restarted, forgot what it had given, and gives it to somebody else."""
    client, endpoint = hosts
    newcomer, plane = Host(), killed()
    await plane.create(wire(client, endpoint), make_id((SPIFFE,)), client=Client((SPIFFE,), "nsc-0"))
    plane = killed() if is_restarted else plane
    stranger = Client(("spiffe://test.mesh/other",), "nsc-0")
    with pytest.raises(Conflict, match=r"10.0.0.1 is another client's in namespace .*: the endpoint gave it twice"):
        await plane.create(wire(newcomer, endpoint, names=("nsm-1", "nse-2")), "two", client=stranger)
    assert newcomer.links() == {}
    assert client.pings("10.0.0.0")
    live = await plane.create(wire(newcomer, endpoint, names=("nsm-1", "nse-2"), **OTHER), "two", client=stranger)
    with pytest.raises(Conflict, match="10.0.0.1 is another client's"):
        await plane.change(live, wire(newcomer, endpoint, names=("nsm-1", "nse-2")))
    assert client.pings("10.0.0.0")
    assert newcomer.pings("10.0.0.2")


async def test_a_client_has_its_address_again_though_all_components_were_restarted(hosts, killed, planes):
    """With new ids: the endpoint's end of its former wire would keep the way to its address for ever."""
    host, endpoint = node(Underlay(), A), hosts[1]
    ours = {"side": "endpoint", "src": "fd00::1/128", "dst": "fd00::/128"}
    before, after = make_id((SPIFFE,)), make_id((SPIFFE,))
    await planes(host).create(end_of(endpoint, "nse-1", Vxlan(7, A, 4789, B, 4789), **ours), before)
    plane = planes(host)
    client = Client((SPIFFE,), "nsc-0")
    await plane.create(end_of(endpoint, "nse-2", Vxlan(9, A, 4789, B, 4789), **ours), after, client=client)
    assert list(endpoint.links()) == ["nse-2"]


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_an_endpoint_that_was_restarted_and_names_its_end_anew_has_it_renamed(hosts, killed, is_restarted):
    """Nothing is made anew where the kernel renames a link in use, as Linux 6.2 and later do."""
    client, endpoint = hosts
    plane = killed()
    live = await plane.create(wire(client, endpoint), "c")
    index = endpoint.links()["nse-1"]["ifindex"]
    with pinging(client, "10.0.0.0") as lost:
        if is_restarted:
            plane = killed()
            await plane.create(wire(client, endpoint, names=("nsm-1", "nse-2")), "c")
        else:
            assert await plane.resume(live, wire(client, endpoint, names=("nsm-1", "nse-2")))
    assert lost() == 0
    assert {name: link["ifindex"] for name, link in endpoint.links().items()} == {"nse-2": index}
    await plane.remove("c")
    assert client.links() == endpoint.links() == {}
    assert plane.open_namespaces() == 0


async def test_the_number_of_a_wire_is_known_after_a_restart(planes, hosts):
    host = node(Underlay(), A)
    await planes(host).create(end_of(hosts[0], "nsm-1", Vxlan(7, A, 4789, B, 4789)), "c")
    again = planes(host)
    await again.underlay(A)
    assert (again.former_vni("c"), again.former_vni("d")) == (7, None)


async def test_an_end_that_is_made_again_is_reached_at_once(planes, hosts):
    """The other one remembers its hardware address."""
    near, far = (node(underlay, address) for underlay in [Underlay()] for address in (A, B))
    client, endpoint = hosts
    plane = planes(far)
    await planes(near).create(end_of(client, "nsm-1", Vxlan(7, A, 4789, B, 4789)), "c")
    there = end_of(endpoint, "nse-1", Vxlan(7, B, 4789, A, 4789), side="endpoint")
    await plane.create(there, "d")
    assert client.pings("10.0.0.0")
    mac = endpoint.links()["nse-1"]["address"]
    await plane.remove("d")
    await plane.create(there, "another")
    assert endpoint.links()["nse-1"]["address"] == mac
    assert client.pings("10.0.0.0")


async def test_a_namespace_that_had_a_wire_before_is_let_go_again(hosts, killed):
    plane = killed()
    for name in ("one", "two"):
        live = await plane.create(wire(*hosts), name)
        await plane.let_go(live)
        assert (live.is_loose, plane.open_namespaces()) == (True, 0)
        await plane.remove(name)


async def test_a_restart_loses_no_packet_and_changes_nothing(hosts, killed):
    """200 packets a second, three restarts."""
    client, endpoint = hosts
    made = wire(client, endpoint, "ETHERNET")
    await killed().create(made, "c")
    before = [host.json("address") for host in hosts], client.json("route"), client.json("rule")
    with pinging(client, "10.0.0.0") as lost:
        for _ in range(3):
            await killed().create(made, "c")
    assert lost() == 0
    assert ([host.json("address") for host in hosts], client.json("route"), client.json("rule")) == before

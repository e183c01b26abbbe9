"""Wires of virtual functions: interfaces that move into real namespaces and back, and devices of real control groups."""

import asyncio
import ipaddress
import os
import subprocess

import pytest

from nsm.chains.core import Conflict, InvalidRequest, Refused, Unsupported
from nsm.chains.forwarding.dataplane import Client
from nsm.chains.forwarding.sides import KernelInterface, Nothing, VirtualFunction
from nsm.chains.forwarding.wires import End, Settings, Wire
from nsm.forwarder_sriov.sysfs import VFIO_DRIVER
from nsm.forwarder_sriov.tokens import State
from tests.chains.devices.groups import groups_of_v2, opens
from tests.forwarder_sriov.tree import given

NAME = "worker.domain/10G"
ONE, OTHER = (
    Client(("spiffe://mesh/ns/default/pod/one",), "one-0"),
    Client(("spiffe://mesh/ns/default/pod/other",), "x"),
)
NOTHING = Nothing()
TOKENS = [f"sriov-{n:08d}-0000-0000-0000-000000000000" for n in range(3)]


def wire(side, *addresses, far=NOTHING, vlan=0, mac="", mtu=0):
    settings = Settings(tuple(map(ipaddress.ip_interface, addresses)), (), (), (), mac=mac)
    return Wire(End(side, settings), End(far, is_endpoints=True), mtu, True, vlan=vlan)


def kernel(host, token, name="nsm-1"):
    return KernelInterface(host.path, name, token)


async def test_two_pods_have_a_function_each_under_their_own_names_and_it_comes_back_with_its_old_one(node, hosts):
    dataplane, tokens, pool = await node.forwarder()
    ids = given(tokens, NAME, 2)
    before = node.functions()
    for number, (host, token) in enumerate(zip(hosts, ids, strict=True), 1):
        side = kernel(host, token)
        live = await dataplane.create(wire(side, f"10.0.0.{number}/24", mtu=1400), f"c{number}", None, ONE)
        assert live.parameters == {"pciAddress": f"0000:3b:10.{number - 1}"}
        assert host.links()["nsm-1"]["mtu"] == 1400
    assert hosts[0].pings("10.0.0.2")
    assert node.functions() == {"eth0v2"}
    ((traffic, nothing),) = await dataplane.traffic([live])
    assert traffic.rx_packets
    assert nothing is None
    for each in ("c1", "c2", "c2", "unknown"):
        await dataplane.remove(each)
    assert node.functions() == before
    assert hosts[0].links() == {}
    assert node.host.links()["eth0v0"]["mtu"] == 1500
    assert "ifalias" not in node.host.links()["eth0v0"]
    assert [tokens.state(each) for each in ids] == [State.ALLOCATED] * 2
    assert pool.holdings() == []
    assert len(dataplane.kernel) == 0


async def test_a_refresh_changes_what_has_changed_and_keeps_the_interface(node, hosts):
    dataplane, tokens, _ = await node.forwarder()
    host, _ = hosts
    token = given(tokens, NAME)
    live = await dataplane.create(wire(kernel(host, token), "10.0.0.1/24"), "c", None, ONE)
    index = host.links()["nsm-1"]["ifindex"]
    await dataplane.let_go(live)
    assert len(dataplane.kernel) == 0
    again = wire(kernel(host, token), "10.0.0.1/24", "10.0.0.9/24")
    assert await dataplane.resume(live, again)
    await dataplane.change(live, again)
    link = host.links()["nsm-1"]
    assert link["ifindex"] == index
    assert {each["local"] for each in link["addr_info"] if each["family"] == "inet"} == {"10.0.0.1", "10.0.0.9"}
    assert not await dataplane.resume(live, wire(kernel(host, TOKENS[0])))
    assert not await dataplane.resume(live, wire(kernel(hosts[1], token)))
    assert not await dataplane.resume(live, wire(VirtualFunction(token, "")))


async def test_an_interface_that_its_workload_has_moved_away_is_missed(node, hosts):
    dataplane, tokens, _ = await node.forwarder()
    one, other = hosts
    token = given(tokens, NAME)
    live = await dataplane.create(wire(kernel(one, token)), "c", None, ONE)
    one.run("ip", "link", "set", "nsm-1", "netns", other.path)
    assert not await dataplane.resume(live, wire(kernel(one, token)))


async def test_a_name_that_is_taken_is_told_and_the_function_is_free_again(node, hosts):
    dataplane, tokens, pool = await node.forwarder()
    host, _ = hosts
    host.run("ip", "link", "add", "nsm-1", "type", "veth", "peer", "name", "x")
    with pytest.raises(Conflict, match="interface name 'nsm-1' is taken in namespace"):
        await dataplane.create(wire(kernel(host, given(tokens, NAME))), "c", None, ONE)
    assert node.functions() == {"eth0v0", "eth0v1", "eth0v2"}
    assert "ifalias" not in node.host.links()["eth0v0"]
    assert pool.holdings() == []
    assert len(dataplane.kernel) == 0


async def test_a_card_that_refuses_a_vlan_leaves_nothing_behind(node, hosts):
    """A veth in its place knows none."""
    dataplane, tokens, pool = await node.forwarder()
    with pytest.raises(Exception, match="the kernel refused to set VLAN 100 of virtual function 0"):
        await dataplane.create(wire(kernel(hosts[0], given(tokens, NAME)), vlan=100), "c", None, ONE)
    assert node.functions() == {"eth0v0", "eth0v1", "eth0v2"}
    assert "ifalias" not in node.host.links()["eth0v0"]
    assert pool.holdings() == []


async def test_a_card_without_carrier_is_told_and_given_back(node, hosts, monkeypatch):
    monkeypatch.setattr("nsm.forwarder_sriov.dataplane._SETTLING", 0.05)
    dataplane, tokens, _ = await node.forwarder()
    node.host.run("ip", "link", "set", "port0", "down")
    with pytest.raises(Conflict, match=r"interface 'nsm-1' does not come up in 0.05 s: is eth0 up on the node"):
        await dataplane.create(wire(kernel(hosts[0], given(tokens, NAME))), "c", None, ONE)
    assert node.functions() == {"eth0v0", "eth0v1", "eth0v2"}


async def test_a_request_that_is_cancelled_leaves_its_function_on_the_node(node, hosts):
    dataplane, tokens, pool = await node.forwarder()
    node.host.run("ip", "link", "set", "port0", "down")
    task = asyncio.ensure_future(dataplane.create(wire(kernel(hosts[0], given(tokens, NAME))), "c", None, ONE))
    async with asyncio.timeout(10):
        while "nsm-1" not in hosts[0].links():
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert node.functions() == {"eth0v0", "eth0v1", "eth0v2"}
    assert pool.holdings() == []


async def test_the_nodes_own_namespace_gets_no_function(node):
    dataplane, tokens, pool = await node.forwarder()
    with pytest.raises(Refused, match="the node's own network namespace"):
        await dataplane.create(wire(kernel(node.host, given(tokens, NAME))), "c", None, ONE)
    assert pool.holdings() == []


async def test_an_endpoint_with_an_interface_of_the_mesh_is_not_joined(node, hosts):
    dataplane, tokens, _ = await node.forwarder()
    far = kernel(hosts[1], "")
    with pytest.raises(Unsupported, match="the endpoint has KERNEL, not NOOP"):
        await dataplane.create(wire(kernel(hosts[0], given(tokens, NAME)), far=far), "c", None, ONE)


async def test_a_client_that_needs_no_interface_gets_none(node):
    """So a request passes the endpoint's node, where its forwarder has nothing to do."""
    dataplane, _, pool = await node.forwarder()
    live = await dataplane.create(wire(Nothing()), "c", None, ONE)
    assert await dataplane.resume(live, wire(Nothing()))
    await dataplane.let_go(live)
    assert await dataplane.traffic([live]) == [(None, None)]
    await dataplane.remove("c")
    assert pool.holdings() == []


async def test_a_token_of_another_pod_is_refused(node, hosts):
    async def whose(token):
        return ("default", "one") if token in allowed else None

    node.whose, allowed = whose, set()
    dataplane, tokens, pool = await node.forwarder()
    token = given(tokens, NAME)
    allowed.add(token)
    with pytest.raises(
        Refused, match="was given to the pod default/one, and not to spiffe://mesh/ns/default/pod/other"
    ):
        await dataplane.create(wire(kernel(hosts[0], token)), "c", None, OTHER)
    assert pool.holdings() == []
    await dataplane.create(wire(kernel(hosts[0], token)), "c", None, ONE)


async def test_a_token_that_another_connection_uses_is_refused_but_not_to_the_client_that_has_come_back(node, hosts):
    dataplane, tokens, pool = await node.forwarder()
    one, other = hosts
    token, superseded = given(tokens, NAME), []
    live = await dataplane.create(wire(kernel(one, token)), "c1", None, ONE)
    live.when_superseded = lambda: superseded.append("c1")
    with pytest.raises(Conflict, match="is in use by another connection"):
        await dataplane.create(wire(kernel(other, token)), "c2", None, OTHER)
    await dataplane.create(wire(kernel(one, token)), "c3", None, ONE)
    assert superseded == ["c1"]
    assert [each.connection_id for each in pool.holdings()] == ["c3"]
    assert node.functions() == {"eth0v1", "eth0v2"}


async def test_a_restarted_forwarder_gives_functions_in_use_to_nobody_else_and_adopts_them(node, hosts):
    """Upstream's forgets them, and chooses them again."""
    first, *_ = await node.forwarder({NAME: TOKENS[:1]})
    one, other = hosts
    await first.create(wire(kernel(one, TOKENS[0]), "10.0.0.1/24"), "c1", None, ONE)
    index = one.links()["nsm-1"]["ifindex"]
    second, tokens, pool = await node.forwarder({NAME: TOKENS[:2]})
    assert [(each.connection_id, each.is_live, each.is_used) for each in await second.owned()] == [("c1", False, True)]
    assert tokens.state(TOKENS[0]) is State.IN_USE
    await second.create(wire(kernel(other, TOKENS[1]), "10.0.0.2/24"), "c2", None, OTHER)
    assert one.pings("10.0.0.2")
    live = await second.create(wire(kernel(one, TOKENS[0], "nsm-7"), "10.0.0.3/24"), "c1", None, ONE)
    assert live.parameters == {"pciAddress": "0000:3b:10.0"}
    link = one.links()["nsm-7"]
    assert link["ifindex"] == index
    assert [each["local"] for each in link["addr_info"] if each["family"] == "inet"] == ["10.0.0.3"]
    assert {each.connection_id for each in await second.owned()} == {"c1", "c2"}
    for each in ("c1", "c2"):
        await second.remove(each)
    assert node.functions() == {"eth0v0", "eth0v1", "eth0v2"}
    assert pool.holdings() == []


async def test_what_nobody_claims_after_a_restart_is_taken_back(node, hosts):
    first, *_ = await node.forwarder({NAME: TOKENS[:2]})
    for number, host in enumerate(hosts):
        await first.create(wire(kernel(host, TOKENS[number])), f"c{number}", None, ONE)
    pods = [subprocess.Popen(["nsenter", f"--net={host.path}", "sleep", "60"]) for host in hosts]
    async with asyncio.timeout(10):
        while not all(os.path.samefile(f"/proc/{p.pid}/ns/net", h.path) for p, h in zip(pods, hosts, strict=True)):
            await asyncio.sleep(0.01)
    second, tokens, pool = await node.forwarder({NAME: TOKENS[:2]})
    await second.remove_former(["c0", "c0", "unknown"])
    await second.remove("c1")  # a Close of a connection that this process does not know
    assert node.functions() == {"eth0v0", "eth0v1", "eth0v2"}
    assert (pool.holdings(), await second.owned()) == ([], [])
    assert tokens.state(TOKENS[0]) is State.ALLOCATED
    for pod in pods:
        pod.kill()
        pod.wait()


async def test_the_client_of_a_killed_forwarder_may_come_back_with_another_connection(node, hosts):
    first, *_ = await node.forwarder({NAME: TOKENS[:1]})
    await first.create(wire(kernel(hosts[0], TOKENS[0])), "c1", None, ONE)
    second, _, pool = await node.forwarder({NAME: TOKENS[:1]})
    await second.create(wire(kernel(hosts[0], TOKENS[0])), "c2", None, ONE)
    assert [each.connection_id for each in pool.holdings()] == ["c2"]
    assert node.functions() == {"eth0v1", "eth0v2"}


async def test_an_interface_that_is_back_on_the_node_gets_its_name_again(node, hosts):
    """As the kernel leaves it there when the namespace of a pod ends: under the pod's name for it."""
    first, *_ = await node.forwarder({NAME: TOKENS[:1]})
    await first.create(wire(kernel(hosts[0], TOKENS[0])), "c1", None, ONE)
    hosts[0].run("ip", "link", "set", "nsm-1", "netns", node.host.path)
    second, _, pool = await node.forwarder({NAME: TOKENS[:1]})
    assert node.functions() == {"eth0v0", "eth0v1", "eth0v2"}
    assert "ifalias" not in node.host.links()["eth0v0"]
    assert pool.holdings() == []
    assert await second.owned() == []


async def test_an_interface_that_a_workload_calls_a_function_is_left_where_it_is(node, hosts):
    """A pod may give its own interfaces any alias: one must not get a foreign interface onto the node by that."""
    one, _ = hosts
    one.run("ip", "link", "add", "mine", "type", "bridge")
    one.run("ip", "link", "set", "mine", "alias", f"nsm-sriov sriov c1 {TOKENS[0]} 0000:3b:10.0 eth7")
    pod = subprocess.Popen(["nsenter", f"--net={one.path}", "sleep", "60"])
    dataplane, _, pool = await node.forwarder({NAME: TOKENS[:1]})
    assert await dataplane.owned() == []
    await dataplane.remove("c1")
    await dataplane.create(wire(kernel(one, TOKENS[0])), "c1", None, ONE)
    assert set(one.links()) == {"mine", "nsm-1"}
    assert "eth7" not in node.links()
    assert [each.function.number for each in pool.holdings()] == [0]
    pod.kill()
    pod.wait()


async def test_a_function_comes_back_whatever_its_workload_did_to_it(node, hosts):
    dataplane, tokens, _ = await node.forwarder()
    one, _ = hosts
    token = given(tokens, NAME)
    live = await dataplane.create(wire(kernel(one, token)), "c1", None, ONE)
    for command in ("set nsm-1 down", "set nsm-1 name other alias mine", "set other up"):
        one.run("ip", "link", *command.split())
    await dataplane.let_go(live)
    await dataplane.remove("c1")
    assert node.functions() == {"eth0v0", "eth0v1", "eth0v2"}
    assert "ifalias" not in node.host.links()["eth0v0"]


async def test_a_function_whose_namespace_is_out_of_reach_keeps_its_vlan_until_it_is_back(node, hosts, monkeypatch):
    """Else its workload would be in the cards' own network."""
    dataplane, tokens, _ = await node.forwarder()
    one, other = hosts
    first, second = given(tokens, NAME, 2)
    live = await dataplane.create(wire(kernel(one, first)), "c1", None, ONE)
    await dataplane.let_go(live)
    cleaned = []
    monkeypatch.setattr(dataplane._interfaces, "clean", lambda *each: cleaned.append(each))
    live.moved.handle, live.moved.key = b"", (0, 0)
    await dataplane.remove("c1")
    assert cleaned == []
    one.run("ip", "link", "set", "nsm-1", "netns", node.host.path)
    await dataplane.create(wire(kernel(other, second)), "c2", None, OTHER)
    assert cleaned
    assert len(node.functions()) == 2


async def test_a_client_of_a_killed_forwarder_that_is_in_another_namespace_now_gets_its_function_there(node, hosts):
    first, *_ = await node.forwarder({NAME: TOKENS[:1]})
    one, other = hosts
    await first.create(wire(kernel(one, TOKENS[0])), "c1", None, ONE)
    pod = subprocess.Popen(["nsenter", f"--net={one.path}", "sleep", "60"])
    async with asyncio.timeout(10):
        while not os.path.samefile(f"/proc/{pod.pid}/ns/net", one.path):
            await asyncio.sleep(0.01)
    second, *_ = await node.forwarder({NAME: TOKENS[:1]})
    await second.create(wire(kernel(other, TOKENS[0])), "c1", None, ONE)
    assert (set(one.links()), set(other.links())) == (set(), {"nsm-1"})
    pod.kill()
    pod.wait()


async def test_a_workloads_program_uses_its_device_until_the_connection_ends(node, tmp_path):
    node.cgroups = tmp_path / "cgroup"
    with groups_of_v2(node.cgroups, "pods/pod1/main", "pods/pod2/main") as (root, (mine, others)):
        dataplane, tokens, _ = await node.forwarder()
        token = given(tokens, NAME)
        side = VirtualFunction(token, f"/{mine.parent.relative_to(root)}/*")
        live = await dataplane.create(wire(side), "c", None, ONE)
        device = node.tree.vfio / live.parameters["iommuGroup"]
        number = os.stat(device).st_rdev
        assert live.parameters == {
            "pciAddress": "0000:3b:10.0",
            "iommuGroup": "3b0",
            "vfioMajor": "1",
            "vfioMinor": "7",
            "deviceMajor": str(os.major(number)),
            "deviceMinor": str(os.minor(number)),
        }
        assert node.tree.drivers_of(0) == [VFIO_DRIVER]
        common = node.tree.vfio / "vfio"
        assert [opens(group, common) for group in (mine, others)] == [True, False]
        late = mine.parent / "late"  # a container that starts later
        late.mkdir()
        assert await dataplane.resume(live, wire(side))
        assert late in live.groups
        await dataplane.remove("c")
        assert not opens(mine, common)


async def test_a_device_of_a_killed_forwarder_stays_its_pods(node, tmp_path):
    node.cgroups = tmp_path / "cgroup"
    with groups_of_v2(node.cgroups, "pods/pod1/main", "pods/pod2/main") as (root, (mine, others)):
        first, *_ = await node.forwarder({NAME: TOKENS[:1]})
        pattern = f"/{mine.parent.relative_to(root)}/*"
        live = await first.create(wire(VirtualFunction(TOKENS[0], pattern)), "c1", None, ONE)
        second, *_ = await node.forwarder({NAME: TOKENS})
        assert [each.is_used for each in await second.owned()] == [True]
        elsewhere = VirtualFunction(TOKENS[1], f"/{others.parent.relative_to(root)}/*", "", "0000:3b:10.0")
        stolen = await second.create(wire(elsewhere), "c2", None, OTHER)
        assert stolen.parameters["pciAddress"] == "0000:3b:10.1"
        side = VirtualFunction(TOKENS[0], pattern, "", "0000:3b:10.0")
        assert (await second.create(wire(side), "c1", None, ONE)).parameters == live.parameters
        await second.remove("c1")
        assert not opens(mine, node.tree.vfio / "vfio")
        third, _, pool = await node.forwarder({NAME: TOKENS})
        (former,) = await third.owned()
        await third.remove_former([former.connection_id])
        assert not opens(others, node.tree.vfio / "vfio")
        assert pool.holdings() == []


async def test_the_groups_are_those_of_the_processes_in_the_clients_namespace(node, tmp_path):
    """A container on cgroup v2 does not see its own group, and cannot name it; nor can it name another's."""
    node.cgroups = tmp_path / "cgroup"
    with groups_of_v2(node.cgroups, "pods/pod1/main", "pods/pod2/main") as (root, (mine, others)):
        dataplane, tokens, _ = await node.forwarder()
        proc = tmp_path / "proc"
        (proc / "7").mkdir(parents=True)
        (proc / "7" / "cgroup").write_text(f"0::/{mine.relative_to(root)}\n")
        dataplane._permissions._proc = proc
        dataplane._processes.look = Any7
        side = VirtualFunction(given(tokens, NAME), f"/{others.parent.relative_to(root)}/*", "/proc/self/ns/net")
        live = await dataplane.create(wire(side), "c", None, ONE)
        assert live.groups == [mine]


class Any7:
    """Process 7 is in every namespace."""

    def get(self, key, otherwise):
        return [7]


async def test_a_client_whose_groups_nobody_knows_is_told_what_the_forwarder_lacks(node, tmp_path):
    node.cgroups = tmp_path / "cgroup"
    with groups_of_v2(node.cgroups):
        dataplane, tokens, pool = await node.forwarder()
        with pytest.raises(Conflict, match=r"it is not known which control groups .* \(hostPID\)"):
            await dataplane.create(wire(VirtualFunction(given(tokens, NAME), "")), "c", None, ONE)
        assert pool.holdings() == []


async def test_a_path_of_groups_that_climbs_out_permits_nothing(node, tmp_path):
    node.cgroups = tmp_path / "cgroup"
    with groups_of_v2(node.cgroups, "pods/pod1/main") as (_, (mine,)):
        dataplane, tokens, pool = await node.forwarder()
        with pytest.raises(InvalidRequest, match="is not a control group"):
            side = VirtualFunction(given(tokens, NAME), "/pods/../../../*")
            await dataplane.create(wire(side), "c", None, ONE)
        assert pool.holdings() == []
        assert not opens(mine, node.tree.vfio / "vfio")

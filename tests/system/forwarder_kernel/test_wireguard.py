"""WireGuard wires between nodes, in userspace: this kernel has none."""

import asyncio
import ipaddress
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.chains.core import Conflict, Unavailable, Unsupported
from nsm.chains.forwarding.sides import KernelInterface, Wireguard
from nsm.chains.forwarding.wires import wire_of
from nsm.forwarder_kernel import dataplane as dataplane_module
from nsm.forwarder_kernel import wire_maker, wireguard_go
from nsm.mesh import namespaces

from .nodes import Host, Underlay, ask, end_programs, mesh_at, pinging, plane_in

pytestmark = pytest.mark.system

A, B = map(ipaddress.ip_address, ("172.16.1.1", "172.16.1.2"))
A6, B6 = map(ipaddress.ip_address, ("fd00:1::1", "fd00:1::2"))
LENGTH = {4: "24", 6: "64"}
SERVICE = "packets"


def node(underlay, *addresses):
    return underlay.node(*(f"{address}/{LENGTH[address.version]}" for address in addresses))


async def two_nodes(mesh, monkeypatch, one=A, other=B, mtu=1500, prefix="10.1.0.0/24"):
    underlay = Underlay(mtu)
    hosts = []
    for name, address in (("a", one), ("b", other)):
        hosts.append(node(underlay, address))
        await mesh.add_node(name, hosts[-1], monkeypatch, tunnel_ip=address)
    await mesh.add_endpoint("nse", "b", SERVICE, "IP", prefix)
    return hosts


def processes(mesh):
    return {name: len(plane._programs) for name, plane in mesh.planes.items()}


def pids(mesh):
    return {process.pid for plane in mesh.planes.values() for process in plane._programs._all}


@pytest.mark.parametrize(("one", "other", "overhead"), [(A, B, 60), (A6, B6, 80)])
@pytest.mark.parametrize("prefix", ["10.1.0.0/24", "fd01::/120"])
async def test_packets_pass_between_nodes(tmp_path, monkeypatch, one, other, overhead, prefix):
    """The first one arrives, both ways; a refresh touches nothing; a Close leaves nothing, no process either."""
    async with mesh_at(tmp_path) as mesh:
        await two_nodes(mesh, monkeypatch, one, other, prefix=prefix)
        host, client = await mesh.add_client("client", "a")
        connection = await client.request(ask(SERVICE))
        ip = connection.context.ip_context
        assert host.pings(ip.dst_ip_addrs[0].split("/")[0])
        assert mesh.workloads["nse"].pings(ip.src_ip_addrs[0].split("/")[0])
        links = [next(iter(mesh.workloads[name].links().values())) for name in ("client", "nse")]
        assert [link["mtu"] for link in links] == [1500 - overhead] * 2 == [connection.context.mtu] * 2
        assert "NOARP" in links[0]["flags"]
        assert links[0]["ifalias"].startswith("nsm forwarder-a ")
        assert processes(mesh) == {"a": 1, "b": 1}
        again = await client.request(ask(SERVICE))
        assert again.context == connection.context
        assert [next(iter(mesh.workloads[name].links().values()))["ifindex"] for name in ("client", "nse")] == [
            link["ifindex"] for link in links
        ]
        await client.close(ask(SERVICE))
        assert (mesh.connections(), mesh.links()) == ({}, {})
        assert processes(mesh) == {"a": 0, "b": 0}
        assert [len(plane._programs._watches) for plane in mesh.planes.values()] == [0, 0]
        assert [plane.open_namespaces() for plane in mesh.planes.values()] == [0, 0]


async def test_a_packet_of_the_wires_mtu_is_not_cut(tmp_path, monkeypatch):
    """Outer packets fill the underlay's MTU exactly, at most."""
    async with mesh_at(tmp_path) as mesh:
        nodes = await two_nodes(mesh, monkeypatch, mtu=1400)
        host, client = await mesh.add_client("client", "a")
        await client.request(ask(SERVICE))
        size = str(1400 - 60 - 28)
        host.run("ping", "-n", "-c", "3", "-i", "0.05", "-W", "2", "-M", "do", "-s", size, "10.1.0.0")
        fragments = nodes[1].run("cat", "/proc/net/snmp").split("\n")
        values = dict(zip(fragments[0].split(), fragments[1].split(), strict=True))
        assert values["ReasmReqds"] == "0"


async def test_wires_of_one_node_have_keys_and_ports_of_their_own(tmp_path, monkeypatch, capfd):
    """The first port is the usual one; no private key is seen in the connection or the log."""
    async with mesh_at(tmp_path) as mesh:
        await two_nodes(mesh, monkeypatch)
        seen = []
        create = dataplane_module.Dataplane.create
        monkeypatch.setattr(
            dataplane_module.Dataplane,
            "create",
            lambda self, wire, *rest: seen.append(wire) or create(self, wire, *rest),
        )
        connections = []
        for name in ("one", "two"):
            _, client = await mesh.add_client(name, "a")
            connections.append(await client.request(ask(SERVICE)))
        tunnels = [wire.tunnel for wire in seen]
        assert len({tunnel.private_key for tunnel in tunnels}) == 4
        ports = {"a": [], "b": []}
        for tunnel in tunnels:
            ports["a" if tunnel.is_client else "b"].append(tunnel.port)
        for of_node in ports.values():
            assert of_node[0] == 51820
            assert of_node[1] != 51820
        said = capfd.readouterr()
        for tunnel in tunnels:
            for text in (said.out, said.err, repr(tunnel), str(connections)):
                assert tunnel.private_key.hex() not in text
                assert str(tunnel.private_key) not in text


async def test_an_unreachable_peer_is_named_and_nothing_stays(tmp_path, monkeypatch):
    """The control plane reaches the other node, UDP does not."""
    monkeypatch.setattr(dataplane_module, "_HANDSHAKE_TIMEOUT", 0.3)
    async with mesh_at(tmp_path) as mesh:
        hosts = await two_nodes(mesh, monkeypatch)
        hosts[0].underlay.switch.run("ip", "link", "set", "port1", "down")
        hosts[1].run("ip", "link", "set", "eth0", "up")
        _, client = await mesh.add_client("client", "a")
        hosts[0].underlay.switch.run("ip", "link", "set", "port1", "up", "nomaster")
        with pytest.raises(Unavailable, match=r"node 172.16.1.2 \(UDP port 51820\) does not answer WireGuard"):
            await client.request(ask(SERVICE))
        assert (mesh.connections(), mesh.links(), processes(mesh)) == ({}, {}, {"a": 0, "b": 0})


async def test_a_process_that_dies_is_replaced_at_the_next_refresh(tmp_path, monkeypatch):
    async with mesh_at(tmp_path) as mesh:
        await two_nodes(mesh, monkeypatch)
        host, client = await mesh.add_client("client", "a")
        await client.request(ask(SERVICE))
        (process,) = mesh.planes["b"]._programs._all
        os.kill(process.pid, signal.SIGKILL)
        process.wait_end()
        await client.request(ask(SERVICE))
        assert host.pings("10.1.0.0") or host.pings("10.1.0.0")  # the new one finds its peer at this moment
        assert processes(mesh) == {"a": 1, "b": 1}


async def test_a_forwarder_that_starts_again_adopts_its_processes_and_no_packet_is_lost(tmp_path, monkeypatch):
    """Keys, sessions and interfaces are the same; when the wire ends nothing is left in the node."""
    async with mesh_at(tmp_path) as mesh:
        nodes = await two_nodes(mesh, monkeypatch)
        host, client = await mesh.add_client("client", "a")
        connection = await client.request(ask(SERVICE))
        before = mesh.links(), mesh.workloads["client"].links(), pids(mesh)
        with pinging(host, "10.1.0.0") as lost:
            for name, address in (("a", A), ("b", B)):
                await mesh.restart_forwarder(name, monkeypatch, tunnel_ip=address)
            again = await client.request(ask(SERVICE))
            assert host.pings("10.1.0.0")
        assert lost() == 0
        assert again.context == connection.context
        assert (mesh.links(), mesh.workloads["client"].links(), pids(mesh)) == before
        await client.close(ask(SERVICE))
        assert (mesh.connections(), mesh.links()) == ({}, {})
        assert not [pid for pid in before[2] if os.path.exists(f"/proc/{pid}/exe")]  # a zombie of ours has none
    assert [set(node.links()) for node in nodes] == [{"eth0"}, {"eth0"}]


@pytest.mark.parametrize("can_rename", [True, False])
async def test_an_endpoint_that_names_its_end_anew_keeps_its_process(monkeypatch, can_rename):
    """Also on a kernel that renames no link in use."""
    node_of, host = Host(), Host()
    node_of.run("ip", "link", "set", "lo", "up")
    private_key = bytes(range(31)) + b"\x5f"  # as curve25519 clamps it
    tunnel = Wireguard(private_key, 51820, bytes(range(1, 33)), B, 51820, 1440, is_client=False)

    def end(name):
        ip = IpContext(src_ip_addrs=["10.0.0.1/32"], dst_ip_addrs=["10.0.0.0/32"])
        context = ConnectionContext(ip_context=ip, mtu=1440)
        return wire_of(Connection(payload="IP", context=context), tunnel, KernelInterface(host.path, name))

    first, second = plane_in(node_of), plane_in(node_of)
    live = await first.create(end("nse-1"), "c")
    pid, index = live.device.process.pid, host.links()["nse-1"]["ifindex"]
    if not can_rename:
        monkeypatch.setattr(wire_maker, "_rename", lambda *_: False)
    again = await second.create(end("nse-2"), "c")
    assert (again.device.process.pid, {"nse-2": index}) == (
        pid,
        {n: each["ifindex"] for n, each in host.links().items()},
    )
    assert [each["local"] for each in host.links()["nse-2"]["addr_info"] if each["family"] == "inet"] == ["10.0.0.0"]
    assert "UP" in host.links()["nse-2"]["flags"]
    await second.remove("c")
    assert host.links() == {}
    await first.aclose()
    await second.aclose()


async def test_a_process_that_a_killed_forwarder_had_just_started_is_ended_by_the_next_one():
    """It has no wire yet, and its interface no alias."""
    node, host = Host(), Host()
    killed = plane_in(node)
    process = await killed._programs.start(host.path, 1440, "nsm forwarder c")
    process.is_wired = True  # else it would be ended in good order
    await killed.aclose()
    plane = plane_in(node, claim_within=0)
    (left,) = await plane.owned()
    assert (left.connection_id, left.links, left.is_live, left.is_used) == ("c", (), False, False)
    await plane.remove_former(["c"])
    assert not os.path.exists(f"/proc/{process.pid}/exe")
    assert host.links() == {}
    assert await plane.owned() == []
    await plane.aclose()


async def test_the_process_of_a_wire_ends_with_its_workload(tmp_path):
    """It would keep the namespace, whose interfaces would go on answering; one that somebody else has stays."""
    workload = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    plane = plane_in(Host())
    while os.path.samefile(f"/proc/{workload.pid}/ns/net", "/proc/self/ns/net"):
        await asyncio.sleep(0.01)
    kept = Host()
    process = await plane._programs.start(f"/proc/{workload.pid}/ns/net", 1440, "nsm forwarder c")
    other = await plane._programs.start(kept.path, 1440, "nsm forwarder d")
    for each in (process, other):
        plane._programs.watch(each)
    passing = subprocess.Popen(["nsenter", f"--net=/proc/{workload.pid}/ns/net", "sleep", "0.1"])
    passing.wait()
    assert process.is_running()
    workload.kill()
    workload.wait()
    async with asyncio.timeout(5):
        while process.is_running():
            await asyncio.sleep(0.01)
    assert other.is_running()
    await end_programs(plane)
    await plane.aclose()


async def test_a_usual_port_that_is_taken_is_left_to_others(tmp_path, monkeypatch):
    """And one that is taken between choice and use is told."""
    async with mesh_at(tmp_path) as mesh:
        nodes = await two_nodes(mesh, monkeypatch)
        host, client = await mesh.add_client("client", "a")

        def bind():
            namespaces.enter(nodes[1].descriptor, namespaces.NEW_NET)
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind(("0.0.0.0", 51820))
            return sock

        with namespaces.in_thread(bind):
            await client.request(ask(SERVICE))
            assert host.pings("10.1.0.0")
            _, other = await mesh.add_client("other", "a")

            async def usual(self, wanted, taken):
                return wanted

            monkeypatch.setattr(dataplane_module.Dataplane, "free_udp_port", usual)
            with pytest.raises(Conflict, match="forwarder-b: UDP port 51820 of this node is taken by another process"):
                await other.request(ask(SERVICE))
        assert processes(mesh) == {"a": 1, "b": 1}


async def test_many_wires_are_made_at_once(tmp_path, monkeypatch):
    """To one workload and to several, in any order; each program has an interface of its own."""
    async with mesh_at(tmp_path) as mesh:
        await two_nodes(mesh, monkeypatch)
        clients = [await mesh.add_client(f"client-{number}", "a") for number in range(4)]
        connections = await asyncio.gather(*(client.request(ask(SERVICE)) for _, client in clients))
        for (host, _), connection in zip(clients, connections, strict=True):
            assert host.pings(connection.context.ip_context.dst_ip_addrs[0].split("/")[0])
        assert processes(mesh) == {"a": 4, "b": 4}
        await asyncio.gather(*(client.close(ask(SERVICE)) for _, client in clients))
        await no_process_more_than_connections(mesh)  # a close waits for the other node only so long
        while mesh.connections() or mesh.links():
            await asyncio.sleep(0.05)
        assert processes(mesh) == {"a": 0, "b": 0}


async def test_a_request_that_is_cancelled_leaves_no_process(tmp_path, monkeypatch):
    """Wherever it was: as many processes are left as there are connections, and they end with those."""
    async with mesh_at(tmp_path) as mesh:
        await two_nodes(mesh, monkeypatch)
        _, client = await mesh.add_client("client", "a")
        for wait in (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(wait):
                    await client.request(ask(SERVICE))
                    await asyncio.sleep(1)
            await client.close(ask(SERVICE))
            await no_process_more_than_connections(mesh)
        await client.request(ask(SERVICE))
        for forwarder in mesh.forwarders.values():
            await forwarder.begin.close_all()
        assert processes(mesh) == {"a": 0, "b": 0}


async def no_process_more_than_connections(mesh):
    """What was cancelled is taken back at other components a little later."""
    for _ in range(250):
        connections = {name: len(forwarder.begin) for name, forwarder in mesh.forwarders.items()}
        if processes(mesh) == connections:
            return
        await asyncio.sleep(0.02)
    raise AssertionError((processes(mesh), connections))


async def test_a_taken_name_leaves_no_process(tmp_path, monkeypatch):
    async with mesh_at(tmp_path) as mesh:
        await two_nodes(mesh, monkeypatch)
        host, client = await mesh.add_client("client", "a")
        host.run("ip", "link", "add", "nsm-1", "type", "bridge")
        wanted = [Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": "nsm-1"})]
        call = ask(SERVICE)
        call.request.mechanism_preferences = wanted
        with pytest.raises(Exception, match="interface name 'nsm-1' is taken in"):
            await client.request(call)
        assert (mesh.connections(), processes(mesh)) == ({}, {"a": 0, "b": 0})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PROGRAM", "wireguard-gone", "this kernel has no WireGuard, and wireguard-gone is not installed"),
        ("_TUN", "/dev/net/none", "needs /dev/net/none, which cannot be opened here: No such file or directory"),
    ],
)
async def test_a_node_that_cannot_says_why(tmp_path, monkeypatch, name, value, told):
    async with mesh_at(tmp_path) as mesh:
        await two_nodes(mesh, monkeypatch)
        _, client = await mesh.add_client("client", "a")
        monkeypatch.setattr(wireguard_go, name, value)
        with pytest.raises(Unsupported, match=told):
            await client.request(ask(SERVICE))
        assert (mesh.connections(), mesh.links()) == ({}, {})


async def test_a_process_that_cannot_start_is_told_in_its_own_words(tmp_path, monkeypatch):
    program = tmp_path / "wireguard-go"
    program.write_text("#!/bin/sh\necho the disk is on fire >&2; exit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    host = Host()
    plane = plane_in(Host())
    with pytest.raises(Unsupported, match="wireguard-go ended: the disk is on fire"):
        await plane._programs.start(host.path, 1440, "nsm forwarder c")
    assert len(plane._programs) == 0
    assert host.links() == {}
    await plane.aclose()


@pytest.mark.parametrize(
    ("mode", "told"),
    [("600", "wireguard-go needs /dev/net/tun, which cannot be opened here: Permission denied"), ("666", "made one")],
)
def test_an_ordinary_user_needs_no_more_than_the_tun_device(tmp_path, mode, told):
    """Where that is closed, it says so; nothing else on the machine has to be writable."""
    here = Path(__file__).parent
    command = [sys.executable, here.parent / "ordinary_user.py", sys.executable, here / "start_wireguard_go.py"]
    device = f"mknod {tmp_path}/tun c 10 200 && chmod {mode} {tmp_path}/tun && mount --bind {tmp_path}/tun /dev/net/tun"
    inside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{device} && exec "$@"', "sh"]
    done = subprocess.run([*inside, *command], capture_output=True, text=True, timeout=30, check=False)
    assert told in done.stdout, done.stdout + done.stderr

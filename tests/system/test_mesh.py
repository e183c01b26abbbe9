"""The local mesh: real processes, real namespaces, real packets."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

NSM = [sys.executable, "-m", "nsm.chains"]
AS_USER = [sys.executable, str(Path(__file__).parent / "ordinary_user.py")]
ETHERNET = """
nodes: [{name: node-1}]
endpoints:
  - {name: endpoint, node: node-1, services: [icmp-responder], payload: ETHERNET, prefixes: [10.1.0.0/24]}
clients:
  - {name: one, node: node-1, wires: ["kernel://icmp-responder/nsm-1"]}
  - {name: two, node: node-1, wires: ["kernel://icmp-responder/nsm-1", "kernel://icmp-responder/nsm-2"]}
"""


def nsm(*arguments, check=True, timeout=40, before=(), **options):
    done = subprocess.run(
        [*before, *NSM, *arguments], capture_output=True, text=True, timeout=timeout, check=False, **options
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def processes(name):
    """Command lines that mention the mesh `name`."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path("/proc", pid, "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if f"--name {name}" in line and int(pid) != os.getpid():
            found.append(line)
    return found


def nothing_is_left(name):
    deadline = time.monotonic() + 5
    while processes(name) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes(name) == []
    assert not Path("/run/nsm-mesh", name).exists()


@pytest.fixture
def mesh(request):
    """A name for a mesh that is taken down at the end, whatever happens."""
    name = f"t{os.getpid()}-{re.sub('[^a-z]', '', request.node.name)[-6:]}"
    yield name
    nsm("mesh", "down", "--name", name, check=False)
    nothing_is_left(name)


def wires(name):
    return json.loads(nsm("mesh", "status", "--json", "--name", name).stdout)["wires"]


def test_up_status_exec_logs_down(mesh):
    """The commands that scripts rely on."""
    assert "is up" in nsm("mesh", "up", "--name", mesh).stdout
    (wire,) = wires(mesh)
    assert wire == {
        "client": "client",
        "service": "icmp-responder",
        "interface": "nsm-1",
        "mechanism": "KERNEL",
        "endpoint": "endpoint",
        "src_ips": ["10.0.0.1/32", "fd00::1/128"],
        "dst_ips": ["10.0.0.0/32", "fd00::/128"],
        "path": ["client", "nsmgr-node-1", "forwarder-node-1", "endpoint"],
        "state": "UP",
    }
    for workload, address in (("client", "10.0.0.0"), ("client", "fd00::"), ("endpoint", "10.0.0.1")):
        ping = nsm("mesh", "exec", "--name", mesh, workload, "--", "ping", "-n", "-c", "1", "-W", "2", address)
        assert "1 received" in ping.stdout
    assert nsm("mesh", "exec", "--name", mesh, "client", "--", "sh", "-c", "exit 7", check=False).returncode == 7
    unknown = nsm("mesh", "exec", "--name", mesh, "nobody", "--", "true", check=False)
    assert unknown.returncode == 127
    assert "there are endpoint, client" in unknown.stderr
    assert "wire up" in nsm("mesh", "logs", "--name", mesh, "client").stdout
    assert nsm("mesh", "up", "--name", mesh).stdout == f"mesh {mesh!r} is up\n"
    assert wires(mesh) == [wire]
    nsm("mesh", "down", "--name", mesh)
    nothing_is_left(mesh)
    assert "is not up" in nsm("mesh", "status", "--name", mesh, check=False).stderr


def test_a_wire_s_ends_are_as_they_should_be(mesh):
    """Names, owner, flags and addresses, and packets without ARP on an IP wire."""
    nsm("mesh", "up", "--name", mesh)
    links = nsm("mesh", "exec", "--name", mesh, "client", "--", "ip", "-d", "-j", "address", "show", "nsm-1").stdout
    (link,) = json.loads(links)
    assert link["ifalias"].startswith("nsm forwarder-node-1 ")
    assert "NOARP" in link["flags"]
    assert {a["local"] for a in link["addr_info"] if a["scope"] == "global"} == {"10.0.0.1", "fd00::1"}
    neighbors = nsm("mesh", "exec", "--name", mesh, "client", "--", "ip", "-j", "neighbor").stdout
    assert {n["dst"]: n["state"] for n in json.loads(neighbors)}["10.0.0.0"] == ["PERMANENT"]


def test_an_ethernet_wire_resolves_addresses_itself_and_clients_do_not_meet(mesh, tmp_path):
    """Two clients, one with two wires; each wire has addresses of its own."""
    topology = tmp_path / "mesh.yaml"
    topology.write_text(ETHERNET)
    nsm("mesh", "up", "--name", mesh, "-f", str(topology))
    found = wires(mesh)
    assert sorted((w["client"], w["interface"]) for w in found) == [
        ("one", "nsm-1"),
        ("two", "nsm-1"),
        ("two", "nsm-2"),
    ]
    assert len({ip for w in found for ip in w["src_ips"] + w["dst_ips"]}) == 6
    for wire in found:
        address = wire["dst_ips"][0].split("/")[0]
        command = ["ping", "-n", "-c", "1", "-W", "2", "-I", wire["interface"], address]
        assert "1 received" in nsm("mesh", "exec", "--name", mesh, wire["client"], "--", *command).stdout
    link = nsm("mesh", "exec", "--name", mesh, "one", "--", "ip", "-j", "link", "show", "nsm-1").stdout
    assert "NOARP" not in json.loads(link)[0]["flags"]


def test_a_workload_has_a_resolv_conf_of_its_own(mesh):
    """The host's file is never written."""
    before = Path("/etc/resolv.conf").read_bytes()
    nsm("mesh", "up", "--name", mesh)
    nsm("mesh", "exec", "--name", mesh, "client", "--", "sh", "-c", "echo nameserver 192.0.2.1 > /etc/resolv.conf")
    assert Path("/etc/resolv.conf").read_bytes() == before
    seen = nsm("mesh", "exec", "--name", mesh, "client", "--", "cat", "/etc/resolv.conf").stdout
    assert seen == "nameserver 192.0.2.1\n"


def test_meshes_live_side_by_side(mesh):
    other = f"{mesh}b"
    try:
        nsm("mesh", "up", "--name", mesh)
        nsm("mesh", "up", "--name", other)
        nsm("mesh", "down", "--name", other)
        nothing_is_left(other)
        assert wires(mesh)[0]["state"] == "UP"
    finally:
        nsm("mesh", "down", "--name", other, check=False)


@pytest.mark.parametrize("after", [0.05, 0.25, 0.45, 0.6])
def test_ctrl_c_while_it_comes_up_leaves_nothing(mesh, after):
    started = subprocess.Popen([*NSM, "mesh", "up", "--name", mesh], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(after)
    started.send_signal(signal.SIGINT)
    started.communicate(timeout=30)
    if started.returncode == 0:  # it was up already
        nsm("mesh", "down", "--name", mesh)
    nothing_is_left(mesh)


def test_a_killed_supervisor_takes_its_processes_with_it(mesh):
    """And the next `up` finds no obstacle."""
    nsm("mesh", "up", "--name", mesh)
    pids = [c["pid"] for c in json.loads(nsm("mesh", "status", "--json", "--name", mesh).stdout)["components"]]
    supervisors = [int(p) for p in filter(str.isdigit, os.listdir("/proc")) if is_supervisor(p, mesh)]
    for pid in supervisors:
        os.kill(pid, signal.SIGKILL)
    nothing_is_left(mesh)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    nsm("mesh", "up", "--name", mesh)
    assert len(wires(mesh)) == 1


def is_supervisor(pid, name):
    """The first process of a session that mentions the mesh."""
    try:
        line = Path("/proc", pid, "cmdline").read_text()
    except OSError:
        return False
    return f"--name\0{name}" in line and os.getsid(int(pid)) == int(pid)


def test_a_client_that_is_killed_leaves_a_wire_until_its_token_ends_and_down_removes_it(mesh):
    """No other client is disturbed."""
    nsm("mesh", "up", "--name", mesh)
    status = json.loads(nsm("mesh", "status", "--json", "--name", mesh).stdout)
    os.kill(next(c["pid"] for c in status["components"] if c["name"] == "client"), signal.SIGKILL)
    time.sleep(0.2)
    components = json.loads(nsm("mesh", "status", "--json", "--name", mesh).stdout)["components"]
    assert {c["name"]: c["state"] for c in components}["client"] == "ended with -9"
    ping = nsm("mesh", "exec", "--name", mesh, "client", "--", "ping", "-n", "-c", "1", "-W", "2", "10.0.0.0")
    assert "1 received" in ping.stdout


LOST = (
    ETHERNET.replace("kernel://icmp-responder/nsm-2", "kernel://lost/nsm-2")
    .replace("[icmp-responder], payload: ETHERNET", "[icmp-responder, lost]")
    .replace(
        "endp",
        "services: [{name: lost, payload: ETHERNET, matches: [{routes: [{destination_selector: {no: where}}]}]}]\nendp",
        1,
    )
)


def test_a_service_that_nobody_provides_is_told_at_once(mesh, tmp_path):
    """Not after two minutes: no other endpoint than those of the file will come."""
    topology = tmp_path / "mesh.yaml"
    topology.write_text(ETHERNET.replace("kernel://icmp-responder/nsm-2", "kernel://icmp-respnder/nsm-2"))
    done = nsm("mesh", "up", "--name", mesh, "-f", str(topology), check=False)
    told = "no endpoint of this file provides the service 'icmp-respnder'; did you mean 'icmp-responder'?"
    assert (done.returncode, done.stderr) == (1, f"nsm mesh: {topology}:7: {told}\n")


def test_a_service_that_leads_a_client_nowhere_is_told_to_it(mesh, tmp_path):
    """In one line with the whole way, again and again but not in a tight loop."""
    topology = tmp_path / "mesh.yaml"
    topology.write_text(LOST)
    started = subprocess.Popen(
        [*NSM, "mesh", "up", "--name", mesh, "-f", str(topology)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told = list(itertools.islice((line for line in started.stderr if "no wire yet" in line), 1))
    begin = time.monotonic()
    told += itertools.islice((line for line in started.stderr if "no wire yet" in line), 3)
    assert time.monotonic() - begin > 0.5
    started.send_signal(signal.SIGINT)
    started.communicate(timeout=30)
    assert all("nsmgr-node-1 → forwarder-node-1: no endpoint of 'lost' matches labels" in line for line in told)


@pytest.mark.parametrize("trace", [[], ["--trace"]])
def test_the_demo_shows_a_ping_and_leaves_nothing(trace):
    done = nsm("demo", *trace)
    assert done.stdout.count("64 bytes from") == 4
    assert "everything is removed" in done.stdout
    if trace:
        assert "Request" in done.stdout
        assert "nsmgr-node-1" in done.stdout


def test_the_demo_of_two_nodes_shows_how_a_wire_crosses():
    done = nsm("demo", "--nodes", "2", "--trace")
    assert "client → nsmgr-node-1 → forwarder-node-1 → nsmgr-node-2 → forwarder-node-2 → endpoint" in done.stdout
    assert "the wire runs over VXLAN from 172.16.1.1 to 172.16.1.2" in done.stdout
    assert done.stdout.count("64 bytes from") == 4
    assert re.search("nsmgr-node-2 .*NetworkService/Request", done.stdout)
    assert "everything is removed" in done.stdout


@pytest.mark.parametrize("nodes", ["1", "2"])
def test_the_demo_runs_as_an_ordinary_user(nodes):
    """In a user namespace, with the same steps."""
    done = nsm("demo", "--nodes", nodes, before=AS_USER)
    assert done.stdout.count("64 bytes from") == 4
    assert "everything is removed" in done.stdout


def test_the_demo_of_two_domains_runs_as_an_ordinary_user_and_shows_eight_segments():
    done = nsm("demo", "--domains", "2", "--trace", before=AS_USER)
    near = "client → nsmgr-node-1 → forwarder-node-1 → nsmgr-proxy-node-1"
    assert f"{near} → nsmgr-proxy-node-2 → nsmgr-node-2 → forwarder-node-2 → endpoint" in done.stdout
    assert re.search("nsmgr-proxy-node-2 .*NetworkService/Request", done.stdout)
    assert done.stdout.count("64 bytes from") == 4
    assert "everything is removed" in done.stdout


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("payload:", "pay:"), "unknown key 'pay' in an endpoint; there are command, environment, labels"),
        (("name: two", "name: one"), "the name 'one' is given twice"),
        (("node: node-1, services", "node: node-9, services"), "there is no node 'node-9'; there are node-1"),
        (("10.1.0.0/24", "10.1.0.0/99"), "'10.1.0.0/99' is not a prefix"),
        (("payload: ETHERNET", "payload: FRAMES"), "neither IP nor ETHERNET"),
        (("kernel://icmp-responder/nsm-2", "nsm-2"), "names no service"),
        (("services: [icmp-responder]", "services: []"), "the key 'services' is missing or empty"),
        (("nodes: [{name: node-1}]", "nodes: [{name: node-1}"), "mesh.yaml:"),
        (("name: node-1}]", "name: node-1}, {name: node-2}]"), "the other nodes cannot reach 'node-2': it has no link"),
    ],
)
def test_a_topology_that_cannot_be_is_refused_with_its_line(tmp_path, change, told):
    topology = tmp_path / "mesh.yaml"
    topology.write_text(ETHERNET.replace(*change))
    done = nsm("mesh", "up", "--name", "never", "-f", str(topology), check=False)
    assert done.returncode == 1
    assert told in done.stderr
    assert re.search(r"mesh.yaml:\d+: ", done.stderr)
    nothing_is_left("never")

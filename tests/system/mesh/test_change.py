"""A second `up`: what is there and fits stays, what is missing comes, what was taken out goes."""

import json
import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import until

pytestmark = pytest.mark.system

FIRST = """
nodes: [{name: node-1}]
services: [{name: web, payload: ETHERNET}]
endpoints:
  - {name: one, node: node-1, services: [web], prefixes: [10.1.0.0/24]}
clients:
  - {name: stays, node: node-1, wires: ["kernel://web/nsm-1"]}
  - {name: goes, node: node-1, wires: ["kernel://web/nsm-1"]}
"""
SECOND = (
    FIRST.replace("name: goes", "name: comes")
    .replace("  - {name: stays", "  - {name: also, node: node-1, wires: ['kernel://mail/nsm-1']}\n  - {name: stays")
    .replace("endpoints:\n", "endpoints:\n  - {name: two, node: node-1, services: [mail], prefixes: [10.2.0.0/24]}\n")
)
NOWHERE = FIRST.replace(
    "ETHERNET}]",
    "ETHERNET}, {name: nothing, payload: ETHERNET, matches: [{routes: [{destination_selector: {no: w}}]}]}]",
).replace("services: [web]", "services: [web, nothing]")
"""With a service that leads its clients to no endpoint."""


@pytest.fixture
def change(mesh, tmp_path):
    file = tmp_path / "mesh.yaml"

    def up(text, *words, **options):
        file.write_text(text)
        return mesh.up("-f", str(file), *words, **options)

    return up


@contextmanager
def no_packet_is_lost(mesh, workload):
    """While a ping a hundred times a second goes on."""
    address = mesh.wire(workload)["dst_ips"][0].partition("/")[0]
    words = ["ping", "-n", "-i", "0.01", "-W", "1", address]
    pinging = mesh.start_in(workload, *words)
    assert pinging.stdout.readline()
    yield
    pinging.send_signal(signal.SIGINT)
    summary = pinging.communicate(timeout=10)[0]
    assert " 0% packet loss" in summary, summary


def interfaces(mesh, workload):
    return json.loads(mesh.run(workload, "ip", "-j", "link").stdout)


def test_what_stays_is_not_touched_what_comes_has_its_wire_and_what_went_has_left_nothing(mesh, change):
    change(FIRST)
    before, link = mesh.pids(), interfaces(mesh, "stays")
    with no_packet_is_lost(mesh, "stays"):
        told = change(SECOND)
    after = mesh.pids()
    assert {name: after.get(name) for name in before if name != "goes"} == {
        k: v for k, v in before.items() if k != "goes"
    }
    assert after.keys() - before.keys() == {"comes", "also", "two"}
    assert "goes                     removed" in told.stdout
    assert not os.path.exists(f"/proc/{before['goes']}")
    assert [each["ifindex"] for each in interfaces(mesh, "stays")] == [each["ifindex"] for each in link]
    assert {wire["client"]: wire["state"] for wire in mesh.status()["wires"]} == dict.fromkeys(
        ["stays", "comes", "also"], "UP"
    )
    assert len(interfaces(mesh, "one")) == 3  # loopback, and the wires of two clients
    assert (
        "there is no workload 'goes'; there are two, one, also, stays, comes"
        in mesh.run("goes", "true", code=127).stderr
    )
    assert not (mesh.folder / "id" / "goes").exists()
    assert not (mesh.folder / "log" / "goes").exists()


def test_a_second_up_without_a_file_keeps_the_mesh_as_it_is_described(mesh, change):
    change(FIRST)
    before = mesh.status()
    assert mesh.up().stdout == f"mesh {mesh.name!r} is up\n"
    assert mesh.status() == before


def test_an_endpoint_that_was_taken_out_is_not_registered_any_more(mesh, change):
    """Nor is a service: nobody is sent to what is gone. The client of another is not touched."""
    change(
        f"{SECOND}".replace(
            "services: [{name: web, payload: ETHERNET}]", "services: [{name: web, payload: ETHERNET}, {name: spare}]"
        )
    )
    assert names(mesh, "endpoints") == {"forwarder-node-1", "one", "two"}
    assert names(mesh, "services") == {"web", "mail", "spare"}
    before = mesh.pids()
    change(FIRST.replace('  - {name: goes, node: node-1, wires: ["kernel://web/nsm-1"]}\n', ""))
    assert names(mesh, "endpoints") == {"forwarder-node-1", "one"}
    assert "spare" not in names(mesh, "services")
    assert mesh.pids()["stays"] == before["stays"]


def names(mesh, what):
    return {line.split()[0] for line in mesh.tool("stays", f"find {what} --registry $NSM_CONNECT_TO")}


@pytest.mark.parametrize(
    "component", ["identity", "registry-node-1", "nsmgr-node-1", "forwarder-node-1", "one", "stays"]
)
def test_a_killed_component_comes_back_and_no_packet_is_lost(mesh, change, component):
    """Only that one is started again and, if its wire has not healed by then, the client of a wire that it forgot."""
    change(FIRST)
    before = mesh.pids()
    with no_packet_is_lost(mesh, "stays"):
        assert mesh.nsm("kill", component).stdout == f"{component} has ended\n"
        states = {each["name"]: each["state"] for each in mesh.status()["components"]}
        assert states[component] == "ended with -9"
        mesh.up()
    after = mesh.pids()
    changed = {name for name in before if after[name] != before[name]}
    clients = {"stays", "goes"} if component in {"forwarder-node-1", "one"} else set()
    assert {component} <= changed <= {component} | clients
    assert {wire["state"] for wire in mesh.status()["wires"]} == {"UP"}


@pytest.mark.parametrize(
    "killed", [["nsmgr-node-1", "stays"], ["nsmgr-node-1", None, "one"]], ids=["at once", "one by one"]
)
def test_a_wire_that_its_manager_has_forgotten_is_not_in_the_way_of_the_next_one(mesh, change, killed):
    """Nobody could close it: neither its client, which is another process now, nor a manager that does not know it."""
    change(FIRST)
    for component in killed:
        if component is None:
            mesh.up()
        else:
            mesh.nsm("kill", component)
    mesh.up("--timeout", "15")
    wires = mesh.status()["wires"]
    assert [wire["state"] for wire in wires] == ["UP", "UP"]
    for wire in wires:
        target = wire["dst_ips"][0].partition("/")[0]
        assert "1 received" in mesh.run(wire["client"], "ping", "-n", "-c", "1", "-W", "2", target).stdout


def test_an_endpoint_that_is_described_otherwise_is_started_again_with_its_clients(mesh, change):
    """They close their wires before, and have others after; everybody else stays."""
    change(FIRST)
    before = mesh.pids()
    change(FIRST.replace("10.1.0.0/24", "10.7.0.0/24"))
    after = mesh.pids()
    assert {name for name in before if after[name] != before[name]} == {"one", "stays", "goes"}
    assert {wire["dst_ips"][0] for wire in mesh.status()["wires"]} == {"10.7.0.0/32", "10.7.0.2/32"}


def test_a_change_that_cannot_be_made_leaves_the_mesh_and_can_be_taken_back(mesh, change):
    """A client of a service that leads it nowhere; a file with a fault."""
    change(NOWHERE)
    before = mesh.pids()
    told = change(
        NOWHERE.replace(
            'wires: ["kernel://web/nsm-1"]}\n  - {name: goes',
            'wires: ["kernel://web/nsm-1"]}\n  - {name: lost, node: node-1, wires: ["kernel://nothing"]}\n  - {name: goes',
        ),
        "--timeout",
        "2",
        code=1,
    )
    assert "not up after 2 s: lost: no wire yet" in told.stderr
    assert "lost" in mesh.pids()
    assert "unknown key" in change(NOWHERE.replace("payload", "pay"), code=1).stderr
    change(NOWHERE)
    assert mesh.pids() == before


def test_a_change_that_is_interrupted_leaves_the_mesh_up(mesh, change, tmp_path):
    change(NOWHERE)
    (tmp_path / "other.yaml").write_text(NOWHERE.replace("kernel://web/nsm-1", "kernel://nothing/nsm-1", 1))
    with mesh.start("--timeout", "0", "-f", str(tmp_path / "other.yaml")) as changing:
        assert "no wire yet" in changing.stderr.readline()
        changing.send_signal(signal.SIGINT)
        assert changing.wait(timeout=10) != 0
    change(NOWHERE)
    assert {wire["state"] for wire in mesh.status()["wires"]} == {"UP"}


def test_nodes_and_links_come_and_go(mesh, change):
    """A mesh of one node grows to three and shrinks again; nothing is left of what went."""
    two = "nodes: [{name: node-1}, {name: node-2}]\nlinks: [{nodes: [node-1, node-2], network: 172.16.1.0/24}]\n"
    three = "nodes: [{name: node-1}, {name: node-2}, {name: node-3}]\n" + two.split("\n", 1)[1].replace(
        "}]\n", "}, {nodes: [node-2, node-3], network: 172.16.2.0/24}]\n"
    )
    change(two)
    before = mesh.pids()
    change(three)
    assert {name: pid for name, pid in mesh.pids().items() if not name.endswith("-3")} == before
    assert [link["network"] for link in mesh.status()["links"]] == ["172.16.1.0/24", "172.16.2.0/24"]
    change(two)
    assert mesh.pids() == before
    assert (
        "172.16.2"
        not in subprocess.run(
            ["nsenter", f"--net=/proc/{before['nsmgr-node-2']}/ns/net", "ip", "address"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    change("nodes: [{name: node-1}]\n")
    assert mesh.status()["links"] == []
    assert set(mesh.pids()) == {"identity", "registry-node-1", "nsmgr-node-1", "forwarder-node-1"}


def test_what_runs_in_a_workload_ends_with_it(mesh, change):
    change(FIRST)
    with mesh.start_in("goes", "sleep", "600") as sleeping:
        assert until(lambda: Path(f"/proc/{sleeping.pid}/comm").read_text() == "sleep\n")
        change(SECOND)
        assert sleeping.wait(timeout=5) == -signal.SIGHUP


def test_a_signal_of_one_s_choice_is_sent(mesh, change):
    change(FIRST)
    assert mesh.nsm("kill", "goes", "--signal", "STOP").stdout == "goes got SIGSTOP\n"
    assert Path(f"/proc/{mesh.pids()['goes']}/stat").read_text().rpartition(") ")[2][0] == "T"
    assert mesh.nsm("kill", "goes", "--signal", "SIGCONT").stdout == "goes got SIGCONT\n"
    assert mesh.nsm("kill", "goes", "--signal", "15").stdout == "goes has ended\n"
    assert "it ended with 0" in mesh.nsm("kill", "goes", code=1).stderr
    assert "there is no component 'nobody'; there are identity" in mesh.nsm("kill", "nobody", code=1).stderr
    assert "unknown signal 'LOUD'" in mesh.nsm("kill", "stays", "--signal", "LOUD", code=2).stderr

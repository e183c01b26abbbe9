"""The commands that look into wires, and those that attach wires, as a person types them in a mesh of two nodes."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from nsm.operate import attach, capture, measure, ping

from .conftest import NSM, local_mesh, until

pytestmark = pytest.mark.system

TOPOLOGY = """
nodes: [{name: node-1}, {name: node-2}]
links: [{nodes: [node-1, node-2], network: 172.16.1.0/24}]
endpoints:
  - {name: near, node: node-1, services: [near], prefixes: [10.1.0.0/24]}
  - {name: far, node: node-2, services: [far], prefixes: [10.2.0.0/24, "fd00:2::/112"]}
  - {name: frames, node: node-1, services: [frames], payload: ETHERNET, prefixes: [10.3.0.0/24]}
clients:
  - {name: client, node: node-1, wires: ["kernel://near/nsm-1", "kernel://far/nsm-2"]}
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    file = tmp_path_factory.mktemp("probes") / "mesh.yaml"
    file.write_text(TOPOLOGY)
    with local_mesh() as found:
        found.up("-f", str(file))
        yield found


COMMANDS = {"ping": ping.main, "measure": measure.main, "capture": capture.main}
COMMANDS |= {"attach": attach.main, "detach": attach.main_detach}


def called(mesh, command, *words):
    """The exit code of a command, and what it printed to standard output and to standard error; in this process."""
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as faults:
        try:
            code = COMMANDS[command](["--name", mesh.name, *words])
        except SystemExit as ended:
            code = ended.code
    return code, output.getvalue(), faults.getvalue()


def headings():
    """Those of the tables that docs/probes.md shows."""
    page = Path(__file__).parents[3] / "docs" / "probes.md"
    return [line.split() for line in page.read_text().splitlines() if line.startswith(("FROM ", "NAME "))]


def nsm(mesh, command, *words, code=0):
    """What a command printed to standard output."""
    found, output, faults = called(mesh, command, *words)
    assert found == code, output + faults
    return output


@contextmanager
def workload():
    """A process in a network namespace of its own."""
    process = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    try:
        assert until(lambda: not os.path.samestat(os.stat(f"/proc/{process.pid}/ns/net"), os.stat("/proc/self/ns/net")))
        yield process
    finally:
        process.kill()
        process.wait()


def links(process):
    shown = subprocess.run(
        ["nsenter", "--net", "--target", str(process.pid), "ip", "-j", "link"], capture_output=True, check=True
    )
    return {link["ifname"]: link["ifindex"] for link in json.loads(shown.stdout) if link["ifname"] != "lo"}


def agent(mesh):
    return next(each["pid"] for each in mesh.status()["components"] if each["name"] == "agent")


def test_a_wire_is_pinged_in_both_directions_and_the_way_it_goes_is_told(mesh):
    lines = nsm(mesh, "ping", "client/nsm-2", "-c", "3", "-i", "0.01").splitlines()
    assert lines[0] == "client/nsm-2 to far over WireGuard"
    assert lines[1].split() in headings()
    wide = nsm(mesh, "ping", "client/nsm-1", "-c", "1", "-o", "wide").splitlines()
    assert wide[2].split()[-3:] == ["10.1.0.1", "nsm-1", "1500"]
    assert [line.split()[2:7] for line in lines[2:]] == [
        [target, "3", "of", "3", "0%"] for target in ("10.2.0.0", "10.2.0.1", "fd00:2::", "fd00:2::1")
    ]


def test_programs_get_the_times_as_json(mesh):
    found = json.loads(nsm(mesh, "ping", "client/nsm-1", "-c", "2", "-i", "0.01", "--json"))
    assert (found["wire"], found["endpoint"], found["way"], found["missing"]) == ("client/nsm-1", "near", ["veth"], [])
    assert [each["received"] for each in found["directions"]] == [2, 2]
    assert all(0 < each["ms"]["p50"] <= each["ms"]["max"] for each in found["directions"])


def test_a_wire_between_nodes_that_are_cut_is_down(mesh):
    """And well again when they are not."""
    mesh.nsm("cut", "node-1", "node-2")
    try:
        assert until(lambda: called(mesh, "ping", "client/nsm-2", "-c", "1")[0] == 1)
        assert until(lambda: "is DOWN" in called(mesh, "ping", "client/nsm-2", "-c", "1")[2])  # the client gave it up
    finally:
        mesh.nsm("mend", "node-1", "node-2")
    assert until(lambda: called(mesh, "ping", "client/nsm-2", "-c", "1")[0] == 0, 20)


@pytest.mark.parametrize(
    ("command", "words", "told"),
    [
        ("ping", ["clint"], "there is no wire 'clint'; did you mean client/nsm-"),
        ("ping", ["client"], "'client' names 2 wires: client/nsm-1, client/nsm-2"),
        ("measure", ["client/nsm-1", "-6"], "client/nsm-1 has no IPv6 addresses at both ends"),
        ("capture", ["client/nsm-1", "foo"], "filter 'foo': 'foo' is not a test"),
        ("capture", ["client/nsm-1", "-w", "/none/x"], "'/none/x' cannot be written"),
        ("attach", ["kernel://near"], "to what? write --pid PID, --container NAME or --netns PATH"),
        ("attach", ["--pid", "1", "near"], "names no service"),
        ("attach", ["--pid", "4194303", "kernel://near"], "there is no process 4194303"),
        ("attach", ["--netns", "/none", "--node", "node-9", "kernel://near"], "there is no node 'node-9'"),
        ("attach", ["--netns", "/dev/null", "kernel://near"], "/dev/null is not a network namespace"),
        ("attach", ["--pid", "1", "--as", "client", "kernel://near"], "there is a component 'client' already"),
        ("attach", ["--container", "none", "kernel://near"], "there is no container 'none'"),
        ("detach", ["none"], "nothing is attached as 'none'; there is nothing"),
        ("detach", [], "which? write a NAME, --pid, --container, --netns or --all"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(mesh, command, words, told):
    code, output, faults = called(mesh, command, *words)
    assert code in (2, 3)
    assert told in faults
    assert (output, len(faults.splitlines())) == ("", 1)


def test_throughput_and_mtu_are_beside_what_the_mechanism_promises(mesh):
    """WireGuard leaves 1440 of 1500 bytes."""
    lines = nsm(mesh, "measure", "client/nsm-2", "--seconds", "0.1").splitlines()
    assert lines[1].startswith("MTU: 1440 bytes pass whole, as the interfaces promise; WireGuard takes 60 bytes")
    assert lines[2].split() in headings()
    found = json.loads(nsm(mesh, "measure", "client/nsm-1", "--seconds", "0.1", "--udp", "--json"))
    assert found["mtu"] == {"found": 1500, "promised": 1500}
    assert [each["bits_per_s"] > 1e6 and each["jitter_ms"] > 0 for each in found["directions"]] == [True, True]


def test_packets_are_shown_a_line_each_at_both_ends_in_their_order(mesh):
    """Encapsulated ones too arrive as they were sent."""
    running = subprocess.Popen(
        [*NSM, "capture", "--name", mesh.name, "client/nsm-2", "--at", "both", "--json", "-c", "4", "icmp", "and", "src", "host", "10.2.0.1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while running.poll() is None:
            nsm(mesh, "ping", "client/nsm-2", "-c", "2", "-i", "0.2")
        output, told = running.communicate(timeout=20)
    finally:
        running.kill()
        running.wait()
    lines = [json.loads(line) for line in output.splitlines()]
    assert told == "4 packets\n"
    assert {(line["at"].partition("/")[0], line["direction"]) for line in lines} == {("client", "out"), ("far", "in")}
    assert all(line["summary"].startswith("10.2.0.1 > 10.2.0.0 ICMP echo re") for line in lines)
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)


def test_a_file_for_wireshark_is_whole_when_the_capture_is_interrupted(mesh, tmp_path):
    file = tmp_path / "wire.pcapng"
    running = subprocess.Popen([*NSM, "capture", "--name", mesh.name, "client/nsm-1", "-w", str(file)])
    try:
        assert until(lambda: file.exists() and file.stat().st_size, 30)
        nsm(mesh, "ping", "client/nsm-1", "-c", "2", "-i", "0.01")
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=20) == 0
    finally:
        running.kill()
        running.wait()
    kinds = [kind for kind, _ in blocks(file.read_bytes())]
    assert kinds[:2] == [0x0A0D0D0A, 1]
    assert kinds[2:-1].count(6) >= 8
    assert kinds[-1] == 5
    assert b"client/nsm-1 to near of near over veth" in file.read_bytes()


def blocks(data):
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from("=II", data, place)
        yield kind, data[place + 8 : place + size - 4]
        place += size


def test_a_running_process_gets_wires_that_stay_when_the_command_has_ended(mesh):
    with workload() as process:
        shown = nsm(mesh, "attach", "--pid", str(process.pid), "--as", "web", "kernel://near/nsm-1")
        assert shown.startswith("web: nsm-1 10.1.0.")
        nsm(mesh, "ping", "web/nsm-1", "-c", "2", "-i", "0.01")
        before = links(process)
        nsm(mesh, "attach", "--pid", str(process.pid), "--as", "web", "kernel://near/nsm-1", "kernel://far/nsm-2")
        nsm(mesh, "ping", "web/nsm-2", "-c", "2", "-i", "0.01")
        assert links(process)["nsm-1"] == before["nsm-1"], "a wire that is still wanted was made anew"
        assert nsm(mesh, "attach").splitlines()[0].split() in headings()
        (listed,) = json.loads(nsm(mesh, "attach", "--json"))
        assert (listed["name"], listed["state"], listed["node"], listed["pid"]) == ("web", "up", "node-1", process.pid)
        assert nsm(mesh, "detach", "web") == "web is detached\n"
        assert links(process) == {}
        assert nsm(mesh, "attach") == "nothing is attached\n"
    assert {wire["client"] for wire in mesh.status()["wires"]} == {"client"}


def test_its_identity_is_its_own_at_the_node_that_was_named(mesh):
    with workload() as process:
        nsm(mesh, "attach", "--pid", str(process.pid), "--as", "shop", "--node", "node-2", "kernel://far/nsm-1")
        entries = (mesh.folder / "identity.entries").read_text()
        assert f"{mesh.folder}/id/shop=spiffe://local.mesh/node-2/shop\n" in entries
        assert mesh.wire("shop")["path"][1] == "nsmgr-node-2"
        nsm(mesh, "detach", "--pid", str(process.pid))
        assert "shop" not in (mesh.folder / "identity.entries").read_text()


def test_the_wires_of_a_process_survive_the_agent_and_its_client(mesh):
    """No packet is lost while the agent is away: the same interface is continued."""
    with workload() as process:
        nsm(mesh, "attach", "--pid", str(process.pid), "--as", "web", "kernel://near/nsm-1")
        before, client = links(process), json.loads(nsm(mesh, "attach", "--json"))[0]["client"]
        pinging = subprocess.Popen(
            [*NSM, "ping", "--name", mesh.name, "web/nsm-1", "-c", "80", "-i", "0.01", "--json"],
            stdout=subprocess.PIPE,
        )
        mesh.nsm("kill", "agent")
        assert until(lambda: not os.path.exists(f"/proc/{client}")), "the client outlives its agent"
        mesh.nsm("start", "agent")
        assert until(lambda: json.loads(nsm(mesh, "attach", "--json"))[0]["state"] == "up")
        directions = json.loads(pinging.communicate(timeout=30)[0])["directions"]
        assert [each["loss"] for each in directions] == [0, 0]
        again = json.loads(nsm(mesh, "attach", "--json"))[0]["client"]
        os.kill(again, signal.SIGKILL)
        assert until(lambda: json.loads(nsm(mesh, "attach", "--json"))[0]["client"] not in (0, again))
        assert until(lambda: json.loads(nsm(mesh, "attach", "--json"))[0]["state"] == "up")
        assert links(process) == before
        nsm(mesh, "detach", "--all")


def test_a_process_that_shares_the_network_of_the_host_is_attached_with_a_note(mesh):
    process = subprocess.Popen(["sleep", "600"])
    try:
        words = ["--pid", str(process.pid), "--as", "shared", "kernel://near/nsmprobe-1"]
        code, output, faults = called(mesh, "attach", *words)
        assert (code, "10.1.0." in output) == (0, True)
        assert "has no network namespace of its own: these are interfaces of this host" in faults
        assert "nsmprobe-1" in os.listdir("/sys/class/net")
        nsm(mesh, "detach", "shared")
        assert "nsmprobe-1" not in os.listdir("/sys/class/net")
    finally:
        process.kill()
        process.wait()


def test_with_the_process_its_attachment_ends(mesh):
    with workload() as process:
        nsm(mesh, "attach", "--pid", str(process.pid), "--as", "web", "kernel://near/nsm-1")
    assert until(lambda: nsm(mesh, "attach") == "nothing is attached\n")
    assert until(lambda: {wire["client"] for wire in mesh.status()["wires"]} == {"client"})


def test_a_namespace_with_a_path_is_attached_until_it_is_detached(mesh, tmp_path):
    """And what does not exist yet is tried on, and told."""
    name = f"probes{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        shown = nsm(mesh, "attach", "--netns", f"/run/netns/{name}", "kernel://none/nsm-1", "--timeout", "1", code=1)
        assert shown.startswith(f"{name}: not up after 1.")
        assert f"the agent goes on trying; `nsm detach {name}` gives up" in shown
        shown = nsm(mesh, "attach", "--netns", f"/run/netns/{name}", "kernel://near/nsm-1")
        assert shown.startswith(f"{name}: nsm-1 10.1.0.")
        nsm(mesh, "detach", name)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def test_an_ordinary_user_probes_the_wires_of_an_own_mesh(tmp_path):
    """In the user namespace of the mesh."""
    script = tmp_path / "script"
    tool = " ".join(NSM)
    script.write_text(
        f"set -e\n{tool} mesh up >/dev/null\n"
        f"{tool} measure client --seconds 0.1 --json\n"
        f"{tool} capture client -c 1 --seconds 10 --json & sleep 0.3; {tool} ping client -c 1 >/dev/null; wait $!\n"
        f"{tool} mesh down >/dev/null\n"
    )
    tmp_path.chmod(0o755)
    user = os.path.join(os.path.dirname(os.path.dirname(__file__)), "ordinary_user.py")
    done = subprocess.run(
        [sys.executable, user, "sh", "-c", script.read_text()], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    measured, captured = map(json.loads, done.stdout.splitlines())
    assert measured["mtu"]["found"] == 1500
    assert "10.0.0." in captured["summary"] or "fd00:" in captured["summary"]

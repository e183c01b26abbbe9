"""`nsm check` on this machine: what it says is what there is, and it leaves nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.mesh.conftest import NSM

pytestmark = pytest.mark.system

AS_USER = [sys.executable, str(Path(__file__).parent.parent / "ordinary_user.py")]


def check(*words, before=(), **environment):
    """The state, the findings by their names, and the exit code."""
    clean = {key: value for key, value in os.environ.items() if key not in {"NSM_CONNECT_TO", "SPIFFE_ENDPOINT_SOCKET"}}
    done = subprocess.run(
        [*before, *NSM, "check", "--json", *words],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    told = json.loads(done.stdout)
    return told["state"], {c["name"]: c for group in told["groups"] for c in group["checks"]}, done.returncode


def links():
    return subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout


def kernel_makes(*words):
    """Whether `ip link add` can, in a namespace that ends with it."""
    command = f"ip link add v0 type veth && ip link add {' '.join(words)}"
    return subprocess.run(["unshare", "--net", "sh", "-c", command], capture_output=True, check=False).returncode == 0


KINDS = {
    "vxlan": ["x0", "type", "vxlan", "id", "5", "dstport", "4789"],
    "macvlan": ["link", "v0", "name", "m0", "type", "macvlan"],
    "vlan": ["link", "v0", "name", "q0", "type", "vlan", "id", "5"],
    "bridge": ["b0", "type", "bridge"],
}


def test_what_it_says_of_the_kernel_is_what_the_kernel_does_and_nothing_is_left():
    before = links()
    _, found, code = check()
    assert code == 0
    assert found["namespaces"]["state"] == found["veth"]["state"] == found["policy-routes-ipv6"]["state"] == "ok"
    for name, words in KINDS.items():
        assert (found[name]["state"] == "ok") == kernel_makes(*words), found[name]
    assert links() == before


def test_an_ordinary_user_has_namespaces_and_hears_what_it_cannot_do():
    _, found, code = check(before=AS_USER)
    assert code == 0
    assert found["namespaces"]["detail"].endswith("in a user namespace")
    assert "CAP_NET_ADMIN, CAP_SYS_ADMIN missing" in found["forwarder"]["detail"]
    assert found["dns-port"]["state"] == "warning"
    assert found["veth"]["state"] == found["vxlan"]["state"] == found["ping-sockets"]["state"] == "ok"


def test_an_ordinary_user_s_workloads_may_open_ping_sockets(mesh):
    """What a client checks its wires with."""
    open_one = "import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM, s.IPPROTO_ICMP)"
    nsm = " ".join(NSM)
    up, down = f"{nsm} mesh --name {mesh.name} up", f"{nsm} mesh --name {mesh.name} down"
    script = f"{up} >/dev/null && {nsm} mesh --name {mesh.name} exec client -- {sys.executable} -c '{open_one}'; a=$?; {down}; exit $a"
    done = subprocess.run([*AS_USER, "sh", "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr


def test_where_namespaces_are_forbidden_it_fails_and_says_what_to_do():
    """Here by a limit of zero, in a user namespace of its own: the machine's is not touched."""
    forbidden = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        'echo 0 >/proc/sys/user/max_net_namespaces; exec "$@"',
    ]
    state, found, code = check(before=[*forbidden, "sh"])
    assert (state, code) == ("error", 1)
    assert found["namespaces"]["state"] == "error"
    assert "No space left" in found["namespaces"]["detail"]
    assert "user.max_net_namespaces" in found["namespaces"]["hint"]


def test_in_a_workload_it_finds_the_manager_and_the_identity(mesh):
    mesh.up()
    told = json.loads(mesh.run("client", *NSM, "check", "--json").stdout)
    found = {c["name"]: c for group in told["groups"] for c in group["checks"]}
    assert found["manager"]["detail"] == f"a manager listens at {mesh.folder}/nsmgr-node-1.sock"
    assert found["identity"]["detail"] == "spiffe://local.mesh/node-1/client (trust domain local.mesh)"
    assert found["expiry"]["state"] == "ok"
    assert found[f"mesh-{mesh.name}"]["detail"] == f"local mesh {mesh.name!r} runs"


def test_what_a_killed_mesh_left_is_found_and_the_hint_mends_it(mesh):
    mesh.up()
    supervisor, zygote = mesh.supervisor(), mesh.zygote()
    for pid in (zygote, supervisor):
        os.kill(pid, signal.SIGSTOP)  # so that neither cleans up when the other ends
    for pid in (zygote, supervisor):
        os.kill(pid, signal.SIGKILL)
    while mesh.processes():
        os.sched_yield()
    _, found, _ = check()
    left = found[f"mesh-{mesh.name}"]
    assert left["state"] == "warning"
    assert left["hint"] == f"nsm mesh down --name {mesh.name}"
    subprocess.run([*NSM, *left["hint"].split()[1:]], capture_output=True, check=True)
    assert f"mesh-{mesh.name}" not in check()[1]

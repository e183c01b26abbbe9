"""Meshes of a test's own, from up to down: what is started again, what goes wrong, what is left."""

import os
from pathlib import Path

import pytest

from tests.compose.engine import CHECKOUT, Project, call, docker

CLIENTS = ["client", "remote-client", "app"]


@pytest.fixture
def own_mesh(command, request):
    """Not up yet; down at the end."""
    project = Project(f"nsm{os.getpid()}{abs(hash(request.node.name)) % 10000}", command)
    yield project
    project.down()


def kernel():
    """What of a mesh the host's kernel could still have."""
    return {
        *(f"link {line.split(': ')[1]}" for line in call("ip", "-o", "link").splitlines()),
        *(f"route {line}" for line in call("ip", "route", "show", "table", "all").splitlines()),
        *(f"mount {line.split()[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        f"forwarding {Path('/proc/sys/net/ipv4/ip_forward').read_text()}",
    }


def engine():
    """What of a mesh the engine could still have."""
    return {kind: docker(kind, "ls", "-q").split() for kind in ("container", "network", "volume")}


def test_down_leaves_nothing(own_mesh):
    """What else comes and goes on this machine meanwhile is not looked at."""
    kernel_before, engine_before = kernel(), engine()
    own_mesh.up("--scale", "client=3")
    own_mesh.until_healthy("client", 3)
    own_mesh.until_healthy("remote-client")
    brought = kernel() - kernel_before
    own_mesh.down()
    kinds = {line.split()[0] for line in brought}
    assert kinds == {"link", "route", "mount"}, "forwarding stays as it was"
    assert brought & kernel() == set()
    assert engine() == engine_before


def test_wires_outlive_a_forwarder_and_a_manager_that_are_started_again(own_mesh):
    own_mesh.up()
    for client in ("client", "remote-client", "app-client"):
        own_mesh.until_healthy(client)
    ends = {client: own_mesh.other_end(client) for client in CLIENTS}
    own_mesh("restart", "forwarder-1", "nsmgr-2")
    assert {client: own_mesh.pings(client, end) for client, end in ends.items()} == dict.fromkeys(CLIENTS, 3)


@pytest.mark.parametrize(
    ("left", "told"),
    [
        ("NET_ADMIN", "this forwarder lacks CAP_SYS_ADMIN, to enter network namespaces"),
        ("SYS_ADMIN", "this forwarder lacks CAP_NET_ADMIN, to make interfaces"),
    ],
)
def test_a_forwarder_with_one_capability_less_says_so_and_ends(command, tmp_path, left, told):
    """Both are used: there is none to take away."""
    text = (CHECKOUT / "docker-compose.yml").read_text()
    file = tmp_path / "docker-compose.yml"
    file.write_text(text.replace("cap_add: [NET_ADMIN, SYS_ADMIN]", f"cap_add: [{left}]"))
    project = Project(f"nsmless{os.getpid()}{left[:3].lower()}", command, file)
    try:
        project("up", "--no-build", "--exit-code-from", "forwarder-1", "forwarder-1", check=False)
        assert told in project.logs("forwarder-1")
    finally:
        project.down()

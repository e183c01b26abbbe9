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


def interfaces(bridge):
    """The bridge of a project's network, and what is on it."""
    links = [line.split(": ")[1].split("@")[0] for line in call("ip", "-o", "link").splitlines() if bridge in line]
    return {*links, *(line for line in call("ip", "route", "show", "table", "all").splitlines() if bridge in line)}


def mounts():
    """Where the engine has mounted something."""
    root = docker("info", "-f", "{{.DockerRootDir}}").strip()
    folders = (root, str(CHECKOUT / ".engine"), "/run/docker")
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return {point for point in points if point.startswith(folders)}


def forwards():
    return Path("/proc/sys/net/ipv4/ip_forward").read_text()


def engine():
    """What of a mesh the engine could still have."""
    return {kind: docker(kind, "ls", "-q").split() for kind in ("container", "network", "volume")}


def test_down_leaves_nothing(own_mesh):
    """Neither in the kernel nor in the engine. What else comes and goes on this machine is not looked at."""
    before = engine(), mounts(), forwards()
    own_mesh.up("--scale", "client=3")
    own_mesh.until_healthy("client", 3)
    own_mesh.until_healthy("remote-client")
    network = docker("network", "ls", "-q", "--no-trunc", "-f", f"name={own_mesh.name}_default").strip()
    bridge = f"br-{network[:12]}"
    assert len(interfaces(bridge)) > len(own_mesh.services()) / 2
    assert mounts() > before[1]
    own_mesh.down()
    assert interfaces(bridge) == set()
    assert (engine(), mounts(), forwards()) == before


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
        ("NET_ADMIN", "this forwarder does not have CAP_SYS_ADMIN, to enter network namespaces"),
        ("SYS_ADMIN", "this forwarder does not have CAP_NET_ADMIN, to make interfaces"),
    ],
)
def test_a_forwarder_with_one_capability_less_says_so_and_ends(command, tmp_path, left, told):
    """Without the third one, NET_BROADCAST, it makes wires and does not look after them."""
    text = (CHECKOUT / "docker-compose.yml").read_text()
    file = tmp_path / "docker-compose.yml"
    file.write_text(text.replace("cap_add: [NET_ADMIN, NET_BROADCAST, SYS_ADMIN]", f"cap_add: [{left}]"))
    project = Project(f"nsmless{os.getpid()}{left[:3].lower()}", command, file)
    try:
        project("up", "--no-build", "--exit-code-from", "forwarder-1", "forwarder-1", check=False)
        assert told in project.logs("forwarder-1")
    finally:
        project.down()

"""The mesh of docker-compose.yml: wires in a node and across nodes, for one client, for five, for what is there already."""

import json
import re
from contextlib import contextmanager

import pytest

from tests.compose.engine import VERSION, call, docker, inspect

FORWARDERS = {"forwarder-1", "forwarder-2"}
CLIENTS = ["client", "remote-client", "app"]
NET_BROADCAST, NET_ADMIN, SYS_ADMIN = 1 << 11, 1 << 12, 1 << 21


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("service", CLIENTS)
def test_a_client_pings_the_endpoint(mesh, service, family):
    assert mesh.pings(service, mesh.other_end(service, family=family)) == 3


def test_a_wire_inside_a_node_is_a_pair_and_one_across_nodes_a_tunnel(mesh):
    assert " veth " in mesh.run("client", "ip", "-d", "link", "show", "nsm-1")
    assert re.search(
        r" vxlan id \d+ remote .* dstport 4789 ", mesh.run("remote-client", "ip", "-d", "link", "show", "nsm-1")
    )


@pytest.mark.parametrize(
    "service", ["identity", "registry", "nsmgr-1", "nsmgr-2", "forwarder-1", "forwarder-2", "endpoint"]
)
def test_a_component_is_healthy(mesh, service):
    """As the image's own check says, which begins after half a minute."""
    mesh.until_healthy(service)


def test_nobody_is_privileged_or_has_more_capabilities_than_it_uses(mesh):
    for service in mesh.services():
        (container,) = mesh.containers(service)
        host = inspect("container", container)["HostConfig"]
        assert not host["Privileged"]
        assert (host["PidMode"], host["IpcMode"], host["UsernsMode"]) == ("", "private", "")
        assert all(mount["Type"] == "volume" for mount in inspect("container", container)["Mounts"])
        held = mesh.run(service, "sed", "-n", "s/^CapBnd:[[:space:]]*//p", "/proc/1/status")
        assert int(held, 16) == (NET_BROADCAST | NET_ADMIN | SYS_ADMIN if service in FORWARDERS else 0), service
        assert host["ReadonlyRootfs"]


def test_a_service_reaches_no_identity_but_its_own(mesh):
    expected = {"client": "local.mesh/node-1/client", "forwarder-2": "local.mesh/node-2/forwarder"}
    for service, name in expected.items():
        socket = "unix:///run/spire/sockets/agent.sock"
        assert mesh.run(service, "nsm", "health", socket) == f"{socket}: issues spiffe://{name}\n"
        assert (
            mesh.run(service, "sh", "-c", "ls /run/spire/sockets; ls -d /run/identity", check=False).split("\n")[0]
            == "agent.sock"
        )
        assert "/run/identity" not in mesh.run(service, "cat", "/proc/self/mountinfo")


def test_five_clients_have_five_wires_and_one_has_one_again(mesh):
    try:
        mesh.up("--scale", "client=5")
        mesh.until_healthy("client", 5)
        ends = [mesh.other_end("client", index=index) for index in range(1, 6)]
        assert len(set(ends)) == 5
        assert [mesh.pings("client", end, index=index) for index, end in enumerate(ends, 1)] == [3] * 5
        assert ends_at(mesh, "endpoint") == 7
    finally:
        mesh.up("--scale", "client=1")
    assert ends_at(mesh, "endpoint") == 3
    assert mesh.pings("client", mesh.other_end("client")) == 3


def ends_at(mesh, service):
    """How many interfaces a container has that are ends of wires."""
    (container,) = mesh.containers(service)
    links = docker(
        "run", "--rm", "--network", f"container:{container}", "--entrypoint", "ip", TOOLS, "-j", "-d", "link"
    )
    return sum("nsm " in link.get("ifalias", "") for link in json.loads(links))


TOOLS = f"localhost/nsm/nsc-tools:{VERSION}"


@contextmanager
def client_beside(mesh, app):
    """A client that shares the network of a container, with an identity and the manager's folder of the mesh."""
    ways = [
        f"--network=container:{app}",
        "--cap-drop=ALL",
        "--read-only",
        f"--volume={mesh.name}_identity-app:/run/spire/sockets:ro",
        f"--volume={mesh.name}_node-1:/var/lib/networkservicemesh",
        "--env=NSM_NAME=given",
        "--env=NSM_NETWORK_SERVICES=kernel://icmp-responder/nsm-7",
        "--env=NSM_READY_FILE=/run/nsm/has-wires",
        "--tmpfs=/run/nsm:uid=65532",
        "--health-interval=1s",
    ]
    with running(*ways, f"localhost/nsm/nsc:{VERSION}") as client:
        yield client


def test_a_container_that_runs_already_is_given_a_wire_and_keeps_nothing_of_it(mesh):
    ways = ["--network=none", "--sysctl=net.ipv6.conf.all.disable_ipv6=0", "--entrypoint=sleep"]
    with running(*ways, TOOLS, "infinity") as app:
        with client_beside(mesh, app) as client:
            until(f"docker inspect -f '{{{{.State.Health.Status}}}}' {client} | grep -qx healthy")
            route = docker("exec", app, "ip", "route", "show", "dev", "nsm-7", "proto", "110")
            assert "3 received" in docker("exec", app, "ping", "-c", "3", "-i", "0.2", route.split()[0])
        assert "nsm-7" not in docker("exec", app, "ip", "link")


def test_a_container_without_ipv6_is_told_how_to_have_it(mesh):
    """The forwarder cannot change that from where it is."""
    with running("--network=none", "--entrypoint=sleep", TOOLS, "infinity") as app:
        with client_beside(mesh, app) as client:
            told = "IPv6 is off in namespace .*; set net.ipv6.conf.all.disable_ipv6=0 there, or give the wire IPv4 only"
            until(f"docker logs {client} 2>&1 | grep -q '{told}'")


@contextmanager
def running(*arguments):
    """A container, stopped and removed at the end."""
    container = docker("run", "--detach", *arguments).strip()
    try:
        yield container
    finally:
        docker("stop", "-t", "5", container)
        docker("rm", "-f", container)


def until(condition):
    call("timeout", "90", "sh", "-c", f"until {condition}; do sleep 0.2; done")


def test_a_client_that_is_stopped_takes_its_wire_with_it(mesh):
    before = ends_at(mesh, "endpoint")
    mesh("stop", "app-client")
    try:
        assert ends_at(mesh, "endpoint") == before - 1
        assert "nsm-1" not in mesh.run("app", "ip", "link")
    finally:
        mesh("start", "app-client")
        mesh.until_healthy("app-client")
    assert ends_at(mesh, "endpoint") == before

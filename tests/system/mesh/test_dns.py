"""Names of a wire: looked up through it, in a workload whose resolv.conf is afterwards as it was."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.mesh.conftest import NSM, until

pytestmark = pytest.mark.system

TOPOLOGY = """
nodes: [{name: node-1}]
endpoints:
  - name: endpoint
    node: node-1
    services: [web]
    prefixes: [10.5.0.0/24]
    environment:
      NSM_DNS_CONFIGS: '[{"dns_server_ips": ["10.5.0.0"], "search_domains": ["mesh.test"]}]'
  - {name: plain, node: node-1, services: [plain], prefixes: [10.6.0.0/24]}
clients:
  - {name: client, node: node-1, wires: ["kernel://plain/nsm-1"]}
"""
BEFORE = b"# the workload's own\nnameserver 10.5.0.99\nsearch else.test\noptions ndots:1 timeout:4"


@pytest.fixture
def workload(mesh, tmp_path):
    """A mesh whose client workload has a file of its own and asks for nothing that brings DNS; returns that file."""
    topology = tmp_path / "mesh.yaml"
    topology.write_text(TOPOLOGY)
    host = Path("/etc/resolv.conf")
    before = host.stat(), host.read_bytes()
    mesh.up("-f", str(topology))
    file = mesh.folder / "resolv" / "client"
    file.write_bytes(BEFORE)
    yield file
    after = host.stat(), host.read_bytes()
    assert (after[0].st_mtime_ns, after[0].st_ino, after[1]) == (before[0].st_mtime_ns, before[0].st_ino, before[1])


@contextlib.contextmanager
def running(mesh, workload, log, *command):
    """A command in a workload, which ends here if it has not ended before."""
    with log.open("w") as output:
        words = [*NSM, "mesh", "--name", mesh.name, "exec", workload, "--", *command]
        process = subprocess.Popen(words, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def dns_server(mesh, log, *names):
    """On the endpoint's end of the first wire, which is there once it is up."""
    return running(
        mesh, "endpoint", log, sys.executable, str(Path(__file__).parent / "dns_server.py"), "10.5.0.0", *names
    )


def client(mesh, log, service="web"):
    environment = ["NSM_NAME=second", f"NSM_NETWORK_SERVICES=kernel://{service}/web"]
    return running(mesh, "client", log, "env", *environment, *NSM, "nsc")


def look_up(mesh, name):
    """As a program of the workload does: the address, and the name in full; nothing if there is none."""
    done = subprocess.run(
        [*NSM, "mesh", "--name", mesh.name, "exec", "client", "--", "getent", "ahostsv4", name],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout.split()[:1] + done.stdout.split()[2:3]


def is_ready(log):
    return '"event": "ready"' in log.read_text() or log.read_text().startswith("ready")


def end(process, number):
    os.kill(process.pid, number)
    return process.wait(timeout=20)


def test_a_name_of_the_mesh_is_looked_up_through_the_wire_and_the_file_is_as_it_was(mesh, workload, tmp_path):
    """In full and by its first part; also after the client was killed and started again."""
    log, server_log = tmp_path / "client.log", tmp_path / "server.log"
    for number in (signal.SIGKILL, signal.SIGTERM):
        with client(mesh, log) as process:
            assert until(lambda: is_ready(log)), log.read_text()
            assert workload.read_bytes() != BEFORE
            with dns_server(mesh, server_log, "web.mesh.test=192.0.2.7"):
                assert until(lambda: is_ready(server_log)), server_log.read_text()
                assert look_up(mesh, "web.mesh.test") == ["192.0.2.7", "web.mesh.test"]
                assert look_up(mesh, "web") == ["192.0.2.7", "web.mesh.test"]
                assert look_up(mesh, "nobody.mesh.test") == []
                assert "web.mesh.test." in server_log.read_text()
            end(process, number)
        if number == signal.SIGKILL:
            assert workload.read_bytes() != BEFORE
    assert workload.read_bytes() == BEFORE
    assert "restored" in log.read_text()


def test_a_name_leads_where_it_led_before_the_wire_whatever_the_wire_knows(mesh, workload, tmp_path):
    """`web.dev` of a cluster, not of the public: `ndots`, the search list and a dot at the end are the resolver's."""
    workload.write_bytes(b"nameserver 10.5.0.99\nsearch dev.svc.cluster.local svc.cluster.local\noptions ndots:5\n")
    log, server_log = tmp_path / "client.log", tmp_path / "server.log"
    inside, public, mesh_own = "web.dev.svc.cluster.local", "web.dev", "web.dev.mesh.test"
    names = [f"{inside}=192.0.2.1", f"{public}=192.0.2.2", f"{mesh_own}=192.0.2.3", "shop.mesh.test=192.0.2.4"]
    with client(mesh, log) as process:
        assert until(lambda: is_ready(log)), log.read_text()
        with dns_server(mesh, server_log, *names):
            assert until(lambda: is_ready(server_log)), server_log.read_text()
            assert look_up(mesh, "web.dev") == ["192.0.2.1", inside]
            assert look_up(mesh, "web.dev.") == ["192.0.2.2", public]
            assert look_up(mesh, "shop") == ["192.0.2.4", "shop.mesh.test"]
            assert look_up(mesh, "shop.") == []
        end(process, signal.SIGTERM)


def test_a_client_whose_wire_brings_no_dns_restores_what_a_killed_one_left_and_touches_nothing(
    mesh, workload, tmp_path
):
    log = tmp_path / "client.log"
    with client(mesh, log) as process:
        assert until(lambda: is_ready(log)), log.read_text()
        end(process, signal.SIGKILL)
    assert workload.read_bytes() != BEFORE
    with client(mesh, log, "plain") as process:
        assert until(lambda: is_ready(log)), log.read_text()
        assert workload.read_bytes() == BEFORE
        listening = mesh.run("client", "ss", "-Hlnu").stdout + mesh.run("client", "ss", "-Hlnt").stdout
        assert ":53 " not in listening
        assert end(process, signal.SIGTERM) == 0
    assert workload.read_bytes() == BEFORE


def test_a_read_only_file_is_a_warning_and_the_wire_works(mesh, workload, tmp_path):
    log = tmp_path / "client.log"
    script = 'mount -o remount,bind,ro /etc/resolv.conf; exec "$@"'
    environment = ["NSM_NAME=second", "NSM_NETWORK_SERVICES=kernel://web/web"]
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh"]
    with running(mesh, "client", log, *private, "env", *environment, *NSM, "nsc") as process:
        assert until(lambda: is_ready(log)), log.read_text()
        assert "/etc/resolv.conf cannot be changed: it is mounted read-only" in log.read_text()
        assert "1 received" in mesh.run("client", "ping", "-n", "-c", "1", "-W", "2", "10.5.0.0").stdout
        assert workload.read_bytes() == BEFORE
        assert end(process, signal.SIGTERM) == 0


def test_a_client_that_shall_not_touch_the_file_does_not(mesh, workload, tmp_path):
    log = tmp_path / "client.log"
    environment = ["NSM_NAME=second", "NSM_NETWORK_SERVICES=kernel://web/web", "NSM_LOCAL_DNS_SERVER_ENABLED=false"]
    with running(mesh, "client", log, "env", *environment, *NSM, "nsc") as process:
        assert until(lambda: is_ready(log)), log.read_text()
        assert workload.read_bytes() == BEFORE
        assert end(process, signal.SIGTERM) == 0


def test_an_address_that_is_taken_is_told_and_the_wire_works(mesh, workload, tmp_path):
    log, other = tmp_path / "client.log", tmp_path / "other.log"
    server = str(Path(__file__).parent / "dns_server.py")
    with running(mesh, "client", other, sys.executable, server, "127.0.0.1") as holder:
        assert until(lambda: is_ready(other)), other.read_text()
        with client(mesh, log) as process:
            assert until(lambda: is_ready(log)), log.read_text()
            assert "the local DNS server cannot listen" in log.read_text()
            assert "Address already in use" in log.read_text()
            assert workload.read_bytes() == BEFORE
            assert "1 received" in mesh.run("client", "ping", "-n", "-c", "1", "-W", "2", "10.5.0.0").stdout
            end(holder, signal.SIGKILL)
            assert until(lambda: workload.read_bytes() != BEFORE), log.read_text()
            assert end(process, signal.SIGTERM) == 0
    assert workload.read_bytes() == BEFORE

"""A load balancer in a vL3: real connections, which stay where they are while servers come and go."""

import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.system.vl3 import addresses

from .conftest import local_mesh, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

EXAMPLE = Path(__file__).parents[3] / "examples" / "vl3-balancer.yaml"
SERVE = """
import socket, sys, threading
def answer(connection):
    with connection:
        while connection.recv(1):
            connection.sendall((sys.argv[1] + "\\n").encode())
with socket.create_server(("", 8080)) as server:
    print("ready", flush=True)
    while True:
        threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()
"""
ASK = """
import socket, sys
for _ in range(int(sys.argv[2])):
    try:
        with socket.create_connection((sys.argv[1], 80), timeout=3) as connection:
            connection.sendall(b".")
            print(connection.makefile().readline().strip())
    except OSError as error:
        print(type(error).__name__)
"""
STAY = """
import socket, sys, time
def ask(connection):
    connection.sendall(b".")
    return connection.makefile().readline().strip()
connections = [socket.create_connection((sys.argv[1], 80), timeout=5) for _ in range(8)]
names = [ask(each) for each in connections]
kept = [each for each, name in zip(connections, names) if name == sys.argv[2]]
while True:
    print("kept" if kept and all(ask(each) == sys.argv[2] for each in kept) else "moved", flush=True)
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def ready_file(tmp_path_factory):
    """That of the balancer."""
    return tmp_path_factory.mktemp("balancer") / "ready"


@pytest.fixture(scope="module")
def balanced(ready_file):
    """The mesh of the example, with a server in each of its servers' workloads."""
    described = ready_file.parent / EXAMPLE.name
    described.write_text(
        EXAMPLE.read_text().replace("POD_NAME: shop,", f'POD_NAME: shop, NSM_READY_FILE: "{ready_file}",')
    )
    with local_mesh() as mesh:
        mesh.up("-f", str(described))
        servers = [mesh.start_in(name, sys.executable, "-c", SERVE, name) for name in ("web-1", "web-2")]
        assert [server.stdout.readline() for server in servers] == ["ready\n"] * 2
        yield mesh
        for server in servers:
            server.kill()
            server.communicate()


def test_a_balancer_says_that_it_is_ready(balanced, ready_file):
    """A pod whose probe looks for the file is never ready otherwise."""
    assert until(ready_file.exists)


def address(mesh):
    (found,) = addresses(mesh)["shop"]
    return found


def answers(mesh, count=40):
    return Counter(mesh.run("user", sys.executable, "-c", ASK, address(mesh), str(count)).stdout.split())


def test_connections_stay_at_their_server_while_others_leave_and_return(balanced):
    assert until(lambda: set(answers(balanced)) == {"web-1", "web-2"}, 15), answers(balanced)
    assert min(answers(balanced, 60).values()) > 10
    staying = balanced.start_in("user", sys.executable, "-c", STAY, address(balanced), "web-1")
    try:
        assert staying.stdout.readline() == "kept\n"
        balanced.nsm("kill", "web-2", "--signal", "TERM")
        assert until(lambda: set(answers(balanced)) == {"web-1"}, 15), answers(balanced)
        balanced.nsm("start", "web-2")
        assert until(lambda: set(answers(balanced)) == {"web-1", "web-2"}, 15), answers(balanced)
    finally:
        staying.terminate()
        said = staying.communicate()[0].split()
    assert len(said) > 10
    assert set(said) == {"kept"}


def test_a_restarted_balancer_keeps_its_address_and_its_connections(balanced):
    assert until(lambda: set(answers(balanced)) == {"web-1", "web-2"}, 15), answers(balanced)
    before = address(balanced)
    staying = balanced.start_in("user", sys.executable, "-c", STAY, before, "web-2")
    try:
        assert staying.stdout.readline() == "kept\n"
        balanced.nsm("kill", "shop")
        assert set(answers(balanced)) == {"web-1", "web-2"}
        balanced.nsm("start", "shop")
        assert until(lambda: set(answers(balanced)) == {"web-1", "web-2"}, 15), answers(balanced)
        assert address(balanced) == before
    finally:
        staying.terminate()
        said = staying.communicate()[0].split()
    assert set(said) == {"kept"}


def test_the_balancer_has_a_name(balanced):
    found = balanced.run("user", "getent", "ahostsv4", "shop.office").stdout.split()
    assert found[0] == address(balanced)

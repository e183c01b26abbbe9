"""A component is killed and started again: wires stay, and what was asked for works again by itself."""

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from .node import NAMES, SECOND, Node

pytestmark = pytest.mark.system


def seconds_of_cpu(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("victim", ["registry", "nsmgr", "forwarder", "endpoint", "client"])
def test_a_killed_component_that_starts_again_finds_its_place(tmp_path, victim):
    """The wire is not made anew, nobody spins while it is away, and the client can refresh and close afterwards.

    Tokens live 15 seconds, so that the client refreshes every three.
    """
    with ExitStack() as stack:
        node = Node(stack, tmp_path, NSM_MAX_TOKEN_LIFETIME="15s")
        node.start_all()
        links, used = node.links(), {name: seconds_of_cpu(node.processes[name]) for name in NAMES if name != victim}
        assert "nsm-1" in links
        node.kill(victim)
        time.sleep(0.7)
        for name, before in used.items():
            assert seconds_of_cpu(node.processes[name]) - before < 0.5, f"{name} is busy with {victim} away"
        node.start(victim)
        time.sleep(4)
        begin = len(node.logs["client"])
        time.sleep(1)  # a refresh that fails is tried every fifth of a second
        assert [line for line in node.logs["client"][begin:] if "failed" in line or "no wire" in line] == []
        assert node.links() == links
        node.stop("client")
        assert node.links() == {}


def test_a_client_that_is_killed_together_with_all_others_has_its_wire_back_as_it_was(tmp_path):
    """Its interface, its address, its endpoint: nobody of those that know is left, but what it wrote down itself."""
    others = ["registry", "nsmgr", "forwarder"]
    with ExitStack() as stack:
        of = {"client": {"NSM_STATE_FOLDER": str(tmp_path / "state")}}
        node = Node(stack, tmp_path, of=of)
        node.start_all()
        links, addresses = node.links(), node.host.run("ip", "-br", "address")
        for name in ("client", *others):
            node.kill(name)
        for name in others:
            node.start(name)
        node.start("client")
        assert (node.links(), node.host.run("ip", "-br", "address")) == (links, addresses)
        assert node.host.pings("10.0.0.0")
        node.stop("client")
        assert node.links() == {}


def test_a_client_that_ends_right_after_its_forwarder_was_restarted_leaves_nothing(tmp_path):
    """No refresh has told the forwarder of the wire; it is closed by what the kernel knows of it."""
    with ExitStack() as stack:
        node = Node(stack, tmp_path)
        node.start_all()
        node.kill("forwarder")
        node.start("forwarder")
        node.stop("client")
        assert node.links() == {}


def test_a_client_that_was_killed_with_its_manager_has_its_interface_again_at_once(tmp_path):
    """Its former connection lives on at the forwarder, and has the name."""
    with ExitStack() as stack:
        node = Node(stack, tmp_path)
        node.start_all()
        node.kill("client")
        node.kill("nsmgr")
        node.start("nsmgr")
        node.start("client")
        assert node.host.pings("10.0.0.0") or node.host.pings("10.0.0.2")
        node.stop("client")
        assert node.links() == {}


def test_an_endpoint_that_dies_with_its_namespace_does_not_answer_pings_any_more(tmp_path):
    """The forwarder, which had its namespace too, does not keep it."""
    with ExitStack() as stack:
        node = Node(stack, tmp_path, alone=["endpoint"])
        node.start_all()
        assert node.host.pings("10.0.0.0")
        node.kill("endpoint")
        end = time.monotonic() + 10
        while "nsm-1" in node.links():
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_client_that_is_killed_in_the_middle_of_its_request_leaves_nothing(tmp_path):
    """The endpoint answers when nobody waits any more; the next client finds all addresses free."""
    with ExitStack() as stack:
        node = Node(stack, tmp_path)
        for name in NAMES[:-1]:
            node.start(name)
        endpoint = node.processes["endpoint"]
        endpoint.send_signal(signal.SIGSTOP)
        node.start("client", until='"identity"')
        time.sleep(0.5)  # its request is at the endpoint now
        node.kill("client")
        endpoint.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        assert node.links() == {}
        node.start("client")
        assert "10.0.0.1/32" in node.logs["client"][-1] + node.logs["client"][-2]
        node.stop("client")
        assert node.links() == {}


def test_a_client_that_comes_to_a_restarted_endpoint_first_does_not_get_the_address_of_another_one(tmp_path):
    """The other one keeps its wire, and its packets do not reach the newcomer."""
    with ExitStack() as stack:
        node = Node(stack, tmp_path)
        node.start_all()
        links, client = node.links(), node.processes["client"]
        assert node.host.pings("10.0.0.0")
        client.send_signal(signal.SIGSTOP)  # it does not ask again
        node.kill("endpoint")
        node.start("endpoint")
        node.start(SECOND)
        assert "10.0.0.3/32" in node.host.run("ip", "-br", "address", "show", "nsm-2")
        assert "10.0.0.1/32" in node.host.run("ip", "-br", "address", "show", "nsm-1")
        begin = len(node.logs["client"])
        client.send_signal(signal.SIGCONT)
        node.wait_for("client", "healed", begin)
        assert "10.0.0.1/32" in node.host.run("ip", "-br", "address", "show", "nsm-1")
        assert links.items() <= node.links().items()
        assert node.host.pings("10.0.0.0")
        assert node.host.pings("10.0.0.2")
        for name in (SECOND, "client"):
            node.stop(name)
        assert node.links() == {}

"""A client whose list of services changes while packets pass."""

import json
import subprocess
import time
from contextlib import ExitStack

import pytest

from .node import Node

pytestmark = pytest.mark.system


def test_a_running_client_follows_its_list_and_the_wires_that_stay_lose_no_packet(tmp_path):
    """One wire is added, one goes, one changes its service's labels; a ping of 100 packets a second runs on another.

    What is dropped from the list while there is no client goes when there is one again.
    """
    services = tmp_path / "services"
    services.write_text("kernel://icmp/nsm-1\nkernel://icmp/nsm-2\nkernel://icmp/nsm-3\n")
    of = {"client": {"NSM_NETWORK_SERVICES_FILE": str(services)}}
    with ExitStack() as stack:
        node = Node(stack, tmp_path, of=of, alone=["endpoint"])
        node.start_all()
        before = {name: index for name, index in node.links().items() if name.startswith("nsm-")}
        assert sorted(before) == ["nsm-1", "nsm-2", "nsm-3"]
        address = node.host.json("route", "show", "dev", "nsm-2")[0]["dst"]
        words = ["nsenter", f"--net={node.host.path}", "ping", "-n", "-q", "-i", "0.01", "-c", "200", address]
        ping = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        services.write_text("kernel://icmp/nsm-2\nkernel://icmp/nsm-3?app=web\nkernel://icmp/nsm-4\n")
        node.wait_for("client", '"interface": "nsm-4"')
        until(lambda: {"nsm-2", "nsm-3", "nsm-4"} == {name for name in node.links() if name.startswith("nsm-")})
        after = node.links()
        assert after["nsm-2"] == before["nsm-2"]
        assert after["nsm-3"] != before["nsm-3"]
        assert "200 received" in ping.communicate(timeout=20)[0]
        node.kill("client")
        services.write_text("kernel://icmp/nsm-2\nkernel://icmp/nsm-3?app=web\n")
        node.start("client")
        until(lambda: "nsm-4" not in node.links())
        assert {name: after[name] for name in ("nsm-2", "nsm-3")}.items() <= node.links().items()
        node.stop("client")
        assert node.links() == {}


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("cut", [("set", "nsm-1", "down"), ("delete", "END")], ids=" ".join)
def test_a_wire_that_is_cut_is_noticed_by_its_client_and_back_in_a_moment(tmp_path, cut):
    """As upstream's dataplane-interrupt has it (heal facts 11.12); the forwarder only reports what it sees."""
    with ExitStack() as stack:
        of = {"forwarder": {"NSM_RECONCILE": "report"}}
        node = Node(stack, tmp_path, of=of, alone=["endpoint"])
        node.start_all()
        assert node.host.pings("10.0.0.0")
        endpoint = Inside(node.processes["endpoint"].pid)
        end = next(
            name
            for name in (link["ifname"] for link in json.loads(endpoint.run("ip", "-j", "link")))
            if name.startswith("icmp-")
        )
        host = endpoint if "END" in cut else node.host
        host.run("ip", "link", *(end if word == "END" else word for word in cut))
        node.wait_for("client", "a connection broke and is being healed", seconds=5)
        until(lambda: "1 received" in node.host.run("ping", "-nc1", "-W0.1", "10.0.0.0", check=False))
        node.stop("client")
        assert node.links() == {}


def test_a_wire_that_is_cut_is_repaired_by_its_forwarder_before_its_client_looks_for_another_endpoint(tmp_path):
    with ExitStack() as stack:
        node = Node(stack, tmp_path, alone=["endpoint"])
        node.start_all()
        before = node.links()
        node.host.run("ip", "link", "set", "nsm-1", "down")
        assert not node.host.pings("10.0.0.0")
        node.wait_for("forwarder", "wire put right", seconds=5)
        until(lambda: "1 received" in node.host.run("ping", "-nc1", "-W0.1", "10.0.0.0", check=False))
        node.host.run("ip", "link", "delete", "nsm-1")
        node.wait_for("forwarder", "created again", seconds=5)
        until(lambda: "1 received" in node.host.run("ping", "-nc1", "-W0.1", "10.0.0.0", check=False))
        assert node.links() == before
        node.stop("client")
        assert node.links() == {}
        assert not any("is being healed" in line for line in node.logs["client"])


class Inside:
    """The namespaces of a process."""

    def __init__(self, pid):
        self.pid = pid

    def run(self, *command):
        inside = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *command]
        return subprocess.run(inside, capture_output=True, text=True, check=True, timeout=20).stdout

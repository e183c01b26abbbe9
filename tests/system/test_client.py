"""A client whose list of services changes while packets pass."""

import subprocess
import time
from contextlib import ExitStack

import pytest

from .node import Node

pytestmark = pytest.mark.system


def test_a_running_client_follows_its_list_and_the_wires_that_stay_lose_no_packet(tmp_path):
    """One wire is added, one goes, one changes its service's labels; a ping of 100 packets a second runs on another."""
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
        node.stop("client")
        assert node.links() == {}


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)

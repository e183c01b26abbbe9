"""A host outside the cluster, `nsm node`: it joins by a token, and there are wires between it and the cluster, both ways.

The cluster is one network namespace with the components of a node, the host another one, with a cable between them.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress

import pytest

from tests.system.node import Node

pytestmark = pytest.mark.system

CLUSTER, HOST = "172.16.9.1", "172.16.9.2"
NODE = "spiffe://local.mesh/node/edge-1"
PATTERNS = "/nsmgr,/forwarder,/registry,/node/*"
FORWARDERS = "forwarder=/forwarder|/node/*"


class Outside(Node):
    """The host: its node, and workloads with the variables that they have by default."""

    def _commands(self):
        manager = {"NSM_CONNECT_TO": f"unix://{self.folder}/nsmgr.sock"}
        return {
            "node": (
                "node --join local.mesh",
                {"NSM_NAME": "", "NSM_LISTEN_ON": f"unix://{self.folder}/nsmgr.sock,tcp://:5001"},
            ),
            "far-shop": ("nsc", {**manager, "NSM_NETWORK_SERVICES": "kernel://icmp@my.cluster/nsm-1"}),
            "store": (
                "nse",
                {**manager, "NSM_SERVICE_NAMES": "store", "NSM_CIDR_PREFIX": "10.2.0.0/24"},
            ),
            "shop": ("nsc", {**manager, "NSM_NETWORK_SERVICES": "kernel://icmp/nsm-1"}),
        }


class Cluster(Node):
    """The cluster, with the proxy and the name server of its domain."""

    def _commands(self):
        return {
            **super()._commands(),
            "proxy": (
                "nsmgr-proxy",
                {
                    "NSM_LISTEN_ON": f"tcp://{CLUSTER}:5004",
                    "NSM_REGISTRY_URL": f"tcp://{CLUSTER}:5002",
                    "NSM_INTERMEDIARIES": PATTERNS,
                    "SPIFFE_ENDPOINT_SOCKET": f"unix://{self.folder}/registry.id",
                },
            ),
            "names": (
                "dns-server",
                {"NSM_LISTEN_ON": f"{CLUSTER}:53", "NSM_RECORDS_FILE": f"{self.folder}/records.yaml"},
            ),
        }


class Both:
    """The cluster, and the host beside it."""

    def __init__(self, stack, folder):
        for name in ("cluster", "host", "join"):
            (folder / name).mkdir(mode=0o700)
        self.folder, inside, outside = folder, folder / "cluster", folder / "host"
        registry = f"tcp://{CLUSTER}:5002"
        trusting = {"NSM_INTERMEDIARIES": PATTERNS, "NSM_REGISTRATION_POLICY": FORWARDERS}
        self.cluster = Cluster(
            stack,
            inside,
            alone=("endpoint", "client"),
            of={
                "identity": {
                    "NSM_JOIN_LISTEN_ON": f"{CLUSTER}:5007",
                    "NSM_JOIN_FOLDER": str(folder / "join"),
                    "NSM_JOIN_REGISTRY": registry,
                    "NSM_JOIN_INTERMEDIARIES": PATTERNS,
                },
                "registry": {"NSM_LISTEN_ON": registry, **trusting},
                "nsmgr": {
                    "NSM_LISTEN_ON": f"unix://{inside}/nsmgr.sock,tcp://{CLUSTER}:5001",
                    "NSM_REGISTRY_URL": registry,
                    **trusting,
                },
                "forwarder": {"NSM_TUNNEL_IP": CLUSTER, "NSM_INTERMEDIARIES": PATTERNS},
                "client": {"NSM_NETWORK_SERVICES": "kernel://store/nsm-1"},
            },
        )
        self.host = Outside(
            stack,
            outside,
            alone=("store", "shop", "far-shop"),
            NSM_DNS_SERVERS=CLUSTER,
            SPIFFE_ENDPOINT_SOCKET=f"unix://{outside}/identity.sock",
            NSM_STATE_FOLDER=str(outside / "state"),
            NSM_ATTACHMENTS=str(outside / "agent"),
        )
        self._cable()

    def _cable(self):
        one, other = self.cluster.host, self.host.host
        one.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", other.path)
        for host, address in ((one, CLUSTER), (other, HOST)):
            host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
            host.run("ip", "link", "set", "eth0", "up")

    def nsm(self, *words, **environment):
        """What a command on the host prints."""
        environment = {"PATH": os.environ["PATH"], **self.host.common, **environment}
        command = [sys.executable, "-m", "nsm.chains", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def join(self):
        token = self.nsm("identity", "token", "edge-1", NSM_JOIN_FOLDER=str(self.folder / "join"))
        self.host.of["node"] = {"NSM_JOIN_TOKEN": token.strip()}
        self.host.start("node", until='"services"')

    def pings(self, node, workload, address):
        namespace = f"--net=/proc/{node.processes[workload].pid}/ns/net"
        command = ["nsenter", namespace, "ping", "-n", "-c", "1", "-W", "2", address]
        return "1 received" in subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout


@pytest.fixture
def both(tmp_path):
    with ExitStack() as stack:
        both = Both(stack, tmp_path)
        for name in ("identity", "registry", "nsmgr", "forwarder"):
            both.cluster.start(name)
        yield both


def test_a_host_that_joins_has_wires_to_the_cluster_and_the_cluster_has_wires_to_it(both):
    both.join()
    both.cluster.start("endpoint")
    both.host.start("shop")
    assert both.pings(both.host, "shop", "10.0.0.0")

    both.host.start("store")
    both.cluster.start("client")
    assert both.pings(both.cluster, "client", "10.2.0.0")

    status = json.loads(both.nsm("node", "status", "--json", NSM_LISTEN_ON=f"unix://{both.folder}/host/nsmgr.sock"))
    assert (status["domain"], status["node"], status["spiffe_id"]) == ("local.mesh", "edge-1", NODE)
    assert {wire["service"]: wire["state"] for wire in status["wires"]} == {"icmp": "UP", "store": "UP"}


def test_a_host_that_joined_reaches_the_cluster_through_its_proxy_by_the_domain_s_name(both):
    """It needs to reach neither the manager nor its registry by their own addresses."""
    ports = {"registry": 5002, "nsmgr-proxy": 5004}
    records = [f"{name}.nsm-system.my.cluster: [{CLUSTER}:{port}]" for name, port in ports.items()]
    (both.folder / "cluster/records.yaml").write_text("\n".join(records) + "\n")
    for name in ("proxy", "names", "endpoint"):
        both.cluster.start(name)
    both.join()
    both.host.start("far-shop")
    assert both.pings(both.host, "far-shop", "10.0.0.0")
    (up,) = [json.loads(line) for line in both.host.logs["far-shop"] if "wire up" in line]
    assert up["path"] == [
        "nsmgr-edge-1",
        "forwarder-edge-1",
        "proxy-edge-1",
        "proxy",
        "nsmgr",
        "forwarder",
        "endpoint",
    ]


def test_a_process_of_the_host_gives_a_container_its_wire_and_the_node_restarts_meanwhile(both):
    """The container is a namespace with a process in it that knows nothing of the mesh; no token is needed twice."""
    both.join()
    both.cluster.start("endpoint")
    container = subprocess.Popen(["unshare", "--net", "sleep", "60"])
    try:
        both.host.start("shop", inside=container.pid)
        both.host.kill("node")
        both.host.of["node"] = {}
        both.host.start("node", until='"services"')
        assert both.pings(both.host, "shop", "10.0.0.0")
    finally:
        container.kill()
        container.wait()


def test_what_is_attached_on_the_host_has_an_identity_of_its_own_below_the_node_s(both):
    """The command starts the agent, a process besides the node that stays, and starts it again if it was killed."""
    both.join()
    both.cluster.start("endpoint")
    container, agents = subprocess.Popen(["unshare", "--net", "sleep", "60"]), []
    url, folder = ["--url", f"unix://{both.folder}/host/nsmgr.sock"], f"{both.folder}/host/agent"
    attach = ["attach", *url, "--agent", folder, "--pid", str(container.pid), "--as", "till", "kernel://icmp/nsm-1"]
    try:
        assert both.nsm(*attach).startswith("till: nsm-1 10.0.0.")
        agents.append(agent_of(folder))
        assert f'"spiffe_id": "{NODE}/till"' in (both.folder / "host/agent/till/log").read_text()
        (there,) = json.loads(both.nsm("ping", *url, "till/nsm-1", "-c", "2", "-i", "0.01", "--json"))["directions"][:1]
        assert there["received"] == 2  # its end was found among all namespaces of the machine

        os.kill(agents[0], signal.SIGKILL)
        assert ended(agents[0])
        (stored,) = json.loads(both.nsm("attach", *url, "--agent", folder, "--json"))
        assert (stored["name"], stored["state"], stored["why"]) == ("till", "waiting", "the agent does not run")
        assert both.nsm(*attach).startswith("till: nsm-1 10.0.0.")
        agents.append(agent_of(folder))
        assert both.nsm("detach", *url, "--agent", folder, "till") == "till is detached\n"
    finally:
        for pid in agents:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        container.kill()
        container.wait()
    assert all(map(ended, agents))


def agent_of(folder):
    """The process that writes the agent's log, and is no client."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/fd/2") == f"{folder}/log":
                return int(pid)
        except OSError:
            continue
    raise AssertionError("there is no agent")


def ended(pid):
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.02)
    return not os.path.exists(f"/proc/{pid}")

"""Where things are in a cluster: addresses, and the files of a cluster's folder."""

import hashlib
import ipaddress
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / ".cluster"
NODES = ["n1", "n2"]
NETWORK = ipaddress.ip_network("10.50.0.0/24")
"""Where the nodes and the control plane see each other."""
CONTROL = str(NETWORK[1])
PODS = ipaddress.ip_network("10.244.0.0/16")
DOMAIN = "cluster.local"


def address(node):
    """A node's own address."""
    return str(NETWORK[11 + NODES.index(node)])


def pods(node):
    """The network of a node's pods."""
    return list(PODS.subnets(new_prefix=24))[1 + NODES.index(node)]


def cgroup(folder):
    """The name of a cluster's control groups, one for each folder."""
    return f"nsm-cluster-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def pid_file(folder, node=None):
    """Holds the pid, as the machine sees it, of the first process of the cluster or of a node."""
    return folder / node / "pid" if node else folder / "pid"

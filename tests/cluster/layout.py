"""Where things are in a cluster: addresses, and the files of a cluster's folder."""

import hashlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER, SECOND_FOLDER = CHECKOUT / ".cluster", CHECKOUT / ".cluster-2"
DOMAIN = "cluster.local"


@dataclass(frozen=True)
class Layout:
    """The nodes and networks of one cluster. Those of two clusters differ, so that packets find their way."""

    number: int
    nodes: tuple

    @property
    def site(self):
        """All that is not a pod's: what follows is in it."""
        return ipaddress.ip_network(f"10.{49 + self.number}.0.0/16")

    @property
    def network(self):
        """Where the nodes and the control plane see each other."""
        return next(self.site.subnets(new_prefix=24))

    @property
    def control(self):
        return str(self.network[1])

    @property
    def balancers(self):
        """The addresses of Services of type LoadBalancer."""
        return list(self.site.subnets(new_prefix=24))[1]

    @property
    def pods(self):
        return ipaddress.ip_network(f"10.{243 + self.number}.0.0/16")

    @property
    def zone(self):
        """The cluster's domain in DNS, as others see it."""
        return f"my.cluster{self.number}"

    def address(self, node):
        """A node's own address."""
        return str(self.network[11 + self.nodes.index(node)])

    def pods_of(self, node):
        """The network of a node's pods."""
        return list(self.pods.subnets(new_prefix=24))[1 + self.nodes.index(node)]


FIRST = Layout(1, ("n1", "n2"))
SECOND = Layout(2, ("n1",))
NODES = list(FIRST.nodes)
BY_NUMBER = {each.number: each for each in (FIRST, SECOND)}
BETWEEN = ipaddress.ip_network("10.49.0.0/30")
"""What joins the two."""


def cgroup(folder):
    """The name of a cluster's control groups, one for each folder."""
    return f"nsm-cluster-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def pid_file(folder, node=None):
    """Holds the pid, as the machine sees it, of the first process of the cluster or of a node."""
    return folder / node / "pid" if node else folder / "pid"

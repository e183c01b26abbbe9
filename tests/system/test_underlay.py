"""The networks that a process is on without the mesh, as its kernel has them."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.system

SET_UP = """
ip link set lo up
ip link add eth0 type veth peer name p0 && ip link set p0 up && ip addr add 10.244.1.7/24 dev eth0 && ip addr add fd00:1::7/64 dev eth0 nodad && ip link set eth0 up
ip route add 172.18.0.0/16 via 10.244.1.1
ip route add default via 10.244.1.1
for alias in "nsm forwarder c" "server-1" "client-1"; do
  ip link add w$((n=n+1)) type veth peer name p$n && ip link set p$n up && ip link set w$n alias "$alias" && ip addr add 10.9.$n.1/24 dev w$n && ip link set w$n up
  ip route add 10.8.$n.0/24 dev w$n
done
ip route add 10.7.0.0/16 dev eth0 proto 110
ip link add nsm-1 type veth peer name p9 && ip link set p9 up && ip addr add 10.6.0.1/32 dev nsm-1 && ip link set nsm-1 up
ip route add 10.6.0.0/32 dev nsm-1
exec "$0" -c "$1"
"""


def networks_by(code):
    told = subprocess.run(
        ["unshare", "-n", "sh", "-ec", SET_UP, sys.executable, code], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    return [each for each in told.stdout.split() if not each.startswith(("fe80", "127", "::1"))]


OTHERS = ["10.244.1.0/24", "172.18.0.0/16", "fd00:1::/64"]


def test_interfaces_and_routes_count_but_for_wires_and_the_default():
    code = "from nsm.chains.elements.underlay import read; print(*sorted(set(map(str, read({'nsm-1'})))))"
    assert networks_by(code) == OTHERS


def test_an_interface_without_an_alias_is_a_wire_from_when_its_client_asked_for_it():
    """Upstream's forwarder for OVS writes no alias."""
    code = (
        "from ipaddress import ip_network\n"
        "from nsm.chains.elements.underlay import Underlay\n"
        "names = set()\n"
        "underlay = Underlay(wires=names)\n"
        "wire, eth0 = ip_network('10.6.0.1/32'), ip_network('10.244.1.7/32')\n"
        "print(underlay().cover(wire), underlay().cover(eth0))\n"
        "names.add('nsm-1')\n"
        "print(underlay().cover(wire), underlay().cover(eth0))\n"
    )
    assert networks_by(code) == ["True", "True", "False", "True"]

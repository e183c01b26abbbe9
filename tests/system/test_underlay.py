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
exec "$0" -c "from nsm.chains.elements.underlay import read; print(*sorted(set(map(str, read()))))"
"""


def test_interfaces_and_routes_count_but_for_wires_and_the_default():
    told = subprocess.run(
        ["unshare", "-n", "sh", "-ec", SET_UP, sys.executable], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert [each for each in told.stdout.split() if not each.startswith(("fe80", "127", "::1"))] == [
        "10.244.1.0/24",
        "172.18.0.0/16",
        "fd00:1::/64",
    ]

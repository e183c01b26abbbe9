"""The wires that an earlier process of an endpoint served, as its kernel has them."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.system

SET_UP = """
ip link set lo up
add() {
  ip link add "$1" type veth peer name "p$1" && ip link set "p$1" up && ip link set "$1" alias "$2" && ip link set "$1" up
  ip addr add "$3" dev "$1"
}
add one "nsm forwarder-1 8a1b-id" 10.0.0.0/32
ip addr add fd00::/128 dev one
ip route add 10.0.0.1/32 dev one
ip route add fd00::1/128 dev one
ip route add 10.50.0.0/16 dev one
add two "client-nsc-0" 10.0.0.2/32
ip route add 10.0.0.3/32 dev two table 4
add none "my own" 10.0.0.4/32
ip route add 10.0.0.5/32 dev none
exec "$0" -c "$1"
"""
CODE = """
import subprocess
from nsm.chains.elements.former_wires import KernelWires
wires = KernelWires()
found = {wire.index: wire for wire in wires.look()}
for wire in found.values():
    print(wire.name, *sorted(str(each) for each in wire.addresses if not each.is_link_local), sep=",")
subprocess.run("ip link set one down; ip link set one name other; ip link delete two; ip link delete none", shell=True)
print(*(found[index].name for index in wires.gone() if index in found), sep=",")
subprocess.run("for n in $(seq 200); do ip link add many type dummy && ip link delete many; done", shell=True)
print(wires.gone() is None or len(wires.gone()))
print(*(wire.name for wire in wires.look()), sep=",")
wires.close()
"""


def test_wires_are_found_with_the_addresses_of_either_end_and_missed_when_they_are_gone():
    told = subprocess.run(
        ["unshare", "-n", "sh", "-ec", SET_UP, sys.executable, CODE], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    one, two, gone, _, left = told.stdout.splitlines()
    assert one == "nsm 8a1b-id,10.0.0.0,10.0.0.1,fd00::,fd00::1"
    assert two == "client nsc-0,10.0.0.2,10.0.0.3"
    assert gone == "client nsc-0"
    assert left == "nsm 8a1b-id"

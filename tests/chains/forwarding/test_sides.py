"""The sides of wires: which mechanism describes which."""

import pytest

from nsm.apis.connection import Mechanism
from nsm.chains.core import InvalidRequest
from nsm.chains.forwarding.sides import Breakout, KernelInterface, Memif, Wireguard, local_side


def kernel(**parameters):
    return Mechanism(type="KERNEL", parameters={"inodeURL": "file:///proc/7/ns/net", "name": "nsm-1", **parameters})


def test_a_kernels_interface_is_a_name_in_a_namespace():
    side = local_side(kernel(tokenID="sriov-1"))
    assert side == KernelInterface("/proc/7/ns/net", "nsm-1", "sriov-1")
    assert (side.kind, side.is_local, side.interface) == ("KERNEL", True, "nsm-1")


@pytest.mark.parametrize("joint", ["", "br-1a2b3c4d", str(1 << 30), str((1 << 31) - 1)])
def test_a_bare_interface_may_become_a_part_of_what_its_holder_has_prepared(joint):
    side = local_side(kernel(name="in-1a2b3c4d", bare="true", joint=joint))
    assert (side.is_bare, side.joint) == (True, joint)
    assert not local_side(kernel(name="in-1a2b3c4d", joint=joint)).joint


@pytest.mark.parametrize("joint", ["docker0", "br-0a0a0a0a", "254", "9999999999", "\uff11"])
def test_an_interface_becomes_no_part_of_what_may_be_the_nodes(joint):
    with pytest.raises(
        InvalidRequest, match=r"in-1a2b3c4d cannot become a part of .*; expected a bridge br-… or a table"
    ):
        local_side(kernel(name="in-1a2b3c4d", bare="true", joint=joint))


def test_a_memif_may_be_in_another_namespace_than_the_forwarders():
    own = Mechanism(type="MEMIF", parameters={"socketfile": "@/m"})
    others = Mechanism(type="MEMIF", parameters={"socketfile": "@/m", "inodeURL": "file:///proc/7/ns/net"})
    assert (local_side(own), local_side(others)) == (Memif("@/m", ""), Memif("@/m", "/proc/7/ns/net"))


@pytest.mark.parametrize("kind", ["VXLAN", "WIREGUARD", "IPSEC", "VLAN", "SRV6", ""])
def test_what_leads_elsewhere_is_described_by_no_mechanism_alone(kind):
    assert local_side(Mechanism(type=kind, parameters={"inodeURL": "file:///proc/7/ns/net", "name": "nsm-1"})) is None


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"name": "a-name-too-long-for-linux"}, "has 25 bytes; an interface name has at most 15"),
        ({"name": "a/b"}, "a space, a slash or a colon"),
        ({"name": ""}, "is not an interface name"),
        ({"inodeURL": ""}, "'' is not a network namespace; expected one such as file:///proc/1234/ns/net"),
        ({"inodeURL": "inode://4/99"}, "'inode://4/99' is not a network namespace"),
    ],
)
def test_an_interface_that_cannot_be_is_refused_by_name(parameters, told):
    with pytest.raises(InvalidRequest, match=told):
        local_side(kernel(**parameters))


def test_a_breakout_is_called_after_its_uplink_and_keys_are_not_shown():
    assert (Breakout("eth1", 0).interface, Breakout("eth1", 7).interface) == ("eth1", "eth1.7")
    tunnel = Wireguard(b"secret", 1, b"", None, 1, 0, is_client=True)
    assert "secret" not in repr(tunnel) + repr(tunnel.settings)

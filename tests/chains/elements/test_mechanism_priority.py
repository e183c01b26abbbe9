"""Which mechanisms a forwarder offers first."""

from nsm.chains.core import Chain
from nsm.chains.elements.mechanism_priority import MechanismPriority
from nsm.chains.testing import Record, call


async def test_listed_mechanisms_come_first_in_the_order_of_the_list():
    probe = Record()
    asked = call(preferences=["KERNEL", "VXLAN", "WIREGUARD", "VLAN"])
    await Chain([MechanismPriority(["VLAN", "IPSEC", "VXLAN"]), probe]).request(asked)
    kinds = [each.type for each in probe.requests[0].mechanism_preferences]
    assert kinds == ["VLAN", "VXLAN", "KERNEL", "WIREGUARD"]

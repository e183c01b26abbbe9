"""What is written about bridges, as the netlink library reads it."""

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from nsm.chains.netlink import bridges


def read(message):
    found = ifinfmsg(message.numbered(7))
    found.decode()
    assert (found["header"]["length"], found["header"]["sequence_number"]) == (len(message.data), 7)
    return found, dict(found["attrs"])


def test_a_bridge_is_made_that_does_not_snoop():
    found, attributes = read(bridges.create_bridge("br1000", 1000, mtu=9000))
    assert (found["header"]["type"], found["header"]["flags"], found["index"]) == (16, 0x605, 1000)
    info = dict(attributes.pop("IFLA_LINKINFO")["attrs"])
    assert info["IFLA_INFO_KIND"] == "bridge"
    assert dict(info["IFLA_INFO_DATA"]["attrs"]) == {"IFLA_BR_MCAST_SNOOPING": 0}
    assert attributes == {"IFLA_IFNAME": "br1000", "IFLA_MTU": 9000}


def test_a_link_becomes_a_port_and_goes_down_and_up():
    found, attributes = read(bridges.enslave(1002, 1000))
    assert (found["header"]["type"], found["index"], attributes) == (19, 1002, {"IFLA_MASTER": 1000})
    for up in (True, False):
        found, attributes = read(bridges.set_state(1002, up=up))
        assert (found["index"], found["flags"], found["change"], attributes) == (1002, int(up), 1, {})

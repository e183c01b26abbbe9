"""Sub-interfaces that wires share, with a kernel that is none: the test machine's has no 802.1q."""

import pytest

from nsm.chains.core import Conflict
from nsm.forwarder_kernel.netlink.sockets import Link
from nsm.forwarder_kernel.tagged_links import TaggedLinks
from nsm.forwarder_kernel.tunnels import Breakout


def link(index, name, *, kind="", lower=0, alias="", **details):
    return Link(index, name, alias, "", 1500, lower, True, kind, details)


class Kernel:
    """As much of a namespace as is needed: links by name, and what was done."""

    descriptor = 5

    def __init__(self, *links):
        self.links, self.done, self.socket = {each.name: each for each in links}, [], self

    def link(self, *, name="", index=0):
        return next((each for each in self.links.values() if name == each.name or index == each.index), None)

    def apply(self, messages, *, ignore=frozenset()):
        for message in messages:
            self.done.append(message.about)
            if message.about.startswith("create vlan "):
                index = int.from_bytes(message.data[20:24], "little")
                name = message.about.removeprefix("create vlan ")
                self.links[name] = link(index, name, kind="vlan", lower=7)
            elif message.about == "delete a link":
                index = int.from_bytes(message.data[20:24], "little")
                self.links = {name: each for name, each in self.links.items() if each.index != index}


def test_a_sub_interface_is_made_with_the_first_and_removed_with_the_last():
    kernel, tagged = Kernel(link(7, "eth1")), TaggedLinks("forwarder")
    first = tagged.take(kernel, Breakout("eth1", 100))
    assert tagged.take(kernel, Breakout("eth1", 100)) == first
    other = tagged.take(kernel, Breakout("eth1", 200))
    assert other != first
    assert kernel.done == ["create vlan eth1.100", "set the link up", "create vlan eth1.200", "set the link up"]
    tagged.give(kernel, Breakout("eth1", 100))
    assert set(kernel.links) == {"eth1", "eth1.100", "eth1.200"}
    tagged.give(kernel, Breakout("eth1", 100))
    assert set(kernel.links) == {"eth1", "eth1.200"}


def test_frames_without_a_tag_are_on_the_uplink_itself():
    kernel, tagged = Kernel(link(7, "eth1")), TaggedLinks("forwarder")
    assert tagged.take(kernel, Breakout("eth1", 0)) == 7
    tagged.give(kernel, Breakout("eth1", 0))
    assert kernel.done == []


def test_a_sub_interface_that_is_there_already_is_used_and_stays():
    there = link(9, "eth1.100", kind="vlan", lower=7, IFLA_VLAN_ID=100)
    kernel, tagged = Kernel(link(7, "eth1"), there), TaggedLinks("forwarder")
    assert tagged.take(kernel, Breakout("eth1", 100)) == 9
    tagged.give(kernel, Breakout("eth1", 100))
    assert "eth1.100" in kernel.links


@pytest.mark.parametrize(
    "there",
    [
        link(9, "eth1.100", kind="bridge"),
        link(9, "eth1.100", kind="vlan", lower=8, IFLA_VLAN_ID=100),
        link(9, "eth1.100", kind="vlan", lower=7, IFLA_VLAN_ID=200),
    ],
)
def test_something_else_of_that_name_is_not_used(there):
    kernel, tagged = Kernel(link(7, "eth1"), there), TaggedLinks("forwarder")
    with pytest.raises(Conflict, match="interface eth1.100 of this node is not VLAN 100 of eth1"):
        tagged.take(kernel, Breakout("eth1", 100))


def test_one_that_somebody_deleted_is_made_again():
    kernel, tagged = Kernel(link(7, "eth1")), TaggedLinks("forwarder")
    tagged.take(kernel, Breakout("eth1", 100))
    del kernel.links["eth1.100"]
    index = tagged.take(kernel, Breakout("eth1", 100))
    assert kernel.links["eth1.100"].index == index


def test_a_long_name_is_replaced_by_one_that_linux_takes():
    kernel, tagged = Kernel(link(7, "enp0s31f6u1u2")), TaggedLinks("forwarder")
    tagged.take(kernel, Breakout("enp0s31f6u1u2", 4094))
    assert "if7.4094" in kernel.links

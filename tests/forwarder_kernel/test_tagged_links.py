"""Sub-interfaces that wires share, with a kernel that is none: the test machine's has no 802.1q."""

import errno
from dataclasses import replace

import pytest

from nsm.chains.core import Conflict
from nsm.chains.forwarding.sides import Breakout
from nsm.chains.netlink.messages import alias_of
from nsm.chains.netlink.sockets import Link, NetlinkError
from nsm.forwarder_kernel.tagged_links import TaggedLinks

MARK = "nsm forwarder VLAN 100 of eth1"


def link(index, name, *, kind="", lower=0, alias="", **details):
    return Link(index, name, alias, "", 1500, lower, True, True, kind, details)


class Kernel:
    """As much of a namespace as is needed: links by name, and what was done."""

    descriptor = 5

    def __init__(self, *links):
        self.there, self.done, self.socket = {each.name: each for each in links}, [], self
        self.wires, self.quiet = {}, []

    def link(self, *, name="", index=0):
        return next((each for each in self.there.values() if name == each.name or index == each.index), None)

    def links(self, mark):
        return [each for each in self.there.values() if each.alias.startswith(mark)]

    def stations(self, index):
        return self.wires.get(index, [])

    def refuse_advertisements(self, interface):
        self.quiet.append(interface)

    def apply(self, messages, *, ignore=frozenset()):
        for message in messages:
            self.done.append(message.about)
            if message.about.startswith("create vlan "):
                index = int.from_bytes(message.data[20:24], "little")
                name = message.about.removeprefix("create vlan ")
                self.there[name] = link(index, name, kind="vlan", lower=7, IFLA_VLAN_ID=int(name.partition(".")[2]))
            elif message.about == "set the link up":
                there = self.link(index=int.from_bytes(message.data[20:24], "little"))
                self.there[there.name] = replace(there, alias=alias_of(message.data))
            elif message.about == "delete a link":
                index = int.from_bytes(message.data[20:24], "little")
                self.there = {name: each for name, each in self.there.items() if each.index != index}


def test_a_sub_interface_is_made_with_the_first_and_removed_with_the_last():
    kernel, tagged = Kernel(link(7, "eth1")), TaggedLinks("forwarder")
    first = tagged.take(kernel, Breakout("eth1", 100))
    assert tagged.take(kernel, Breakout("eth1", 100)) == first
    other = tagged.take(kernel, Breakout("eth1", 200))
    assert other != first
    assert kernel.done == ["create vlan eth1.100", "set the link up", "create vlan eth1.200", "set the link up"]
    tagged.give(kernel, Breakout("eth1", 100))
    assert set(kernel.there) == {"eth1", "eth1.100", "eth1.200"}
    tagged.give(kernel, Breakout("eth1", 100))
    assert set(kernel.there) == {"eth1", "eth1.200"}


def test_frames_without_a_tag_are_on_the_uplink_itself():
    kernel, tagged = Kernel(link(7, "eth1")), TaggedLinks("forwarder")
    assert tagged.take(kernel, Breakout("eth1", 0)) == 7
    tagged.give(kernel, Breakout("eth1", 0))
    assert kernel.done == []


@pytest.mark.parametrize("alias", ["", "uplink of the lab", "nsm forwarder-2 VLAN 100 of eth1"])
def test_a_sub_interface_that_somebody_else_made_is_used_and_stays(alias):
    there = link(9, "eth1.100", kind="vlan", lower=7, alias=alias, IFLA_VLAN_ID=100)
    kernel, tagged = Kernel(link(7, "eth1"), there), TaggedLinks("forwarder")
    assert tagged.take(kernel, Breakout("eth1", 100)) == 9
    tagged.give(kernel, Breakout("eth1", 100))
    tagged.clear(kernel)
    assert kernel.there["eth1.100"] == there


def test_a_forwarder_that_was_started_again_removes_its_sub_interface_with_the_last_wire():
    kernel = Kernel(link(7, "eth1"))
    index = TaggedLinks("forwarder").take(kernel, Breakout("eth1", 100))
    kernel.wires = {index: ["02:00:00:00:00:01", "02:00:00:00:00:02"]}
    again = TaggedLinks("forwarder")
    assert again.take(kernel, Breakout("eth1", 100)) == index
    kernel.wires = {index: ["02:00:00:00:00:02"]}
    again.give(kernel, Breakout("eth1", 100))
    assert kernel.there["eth1.100"].alias == MARK  # of the other wire it has not heard yet
    assert again.take(kernel, Breakout("eth1", 100)) == index
    kernel.wires = {}
    again.give(kernel, Breakout("eth1", 100))
    assert set(kernel.there) == {"eth1"}


def test_what_an_earlier_forwarder_left_goes_when_nothing_is_on_it():
    left = [link(9, "eth1.100", kind="vlan", lower=7, alias=MARK, IFLA_VLAN_ID=100)]
    left.append(link(10, "eth1.200", kind="vlan", lower=7, alias="nsm forwarder VLAN 200 of eth1", IFLA_VLAN_ID=200))
    kernel, tagged = Kernel(link(7, "eth1"), *left), TaggedLinks("forwarder")
    kernel.wires = {10: ["02:00:00:00:00:01"]}
    tagged.clear(kernel)
    assert set(kernel.there) == {"eth1", "eth1.200"}
    taken = tagged.take(kernel, Breakout("eth1", 300))
    tagged.clear(kernel)
    assert kernel.there["eth1.300"].index == taken


def test_a_sub_interface_that_cannot_be_set_up_does_not_stay():
    class Refusing(Kernel):
        def apply(self, messages, *, ignore=frozenset()):
            if messages[0].about == "set the link up":
                raise NetlinkError("set the link up", "here", errno.ENETDOWN)
            super().apply(messages, ignore=ignore)

    kernel = Refusing(link(7, "eth1"))
    with pytest.raises(NetlinkError):
        TaggedLinks("forwarder").take(kernel, Breakout("eth1", 100))
    assert set(kernel.there) == {"eth1"}


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
    del kernel.there["eth1.100"]
    index = tagged.take(kernel, Breakout("eth1", 100))
    assert kernel.there["eth1.100"].index == index


def test_a_long_name_is_replaced_by_one_that_linux_takes():
    kernel, tagged = Kernel(link(7, "enp0s31f6u1u2")), TaggedLinks("forwarder")
    tagged.take(kernel, Breakout("enp0s31f6u1u2", 4094))
    assert "if7.4094" in kernel.there

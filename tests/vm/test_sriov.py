"""Real virtual functions: two emulated cards on one cable, as pods get them, and a forwarder that is killed."""

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element
from nsm.chains.devices import program
from nsm.chains.devices.program import _instruction
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.noop import OfferNoop
from nsm.chains.forwarding.make_wire import MakeWire
from nsm.forwarder_sriov.parts import functions_only
from nsm.mesh import namespaces
from tests.vm.guest.cards import Cards, client, kernel, links, new_tokens, run, vfio, wire
from tests.vm.guest.hosts import Host

SECONDS = 120
ROUNDS, MOST = 3, 2.0
"""Of each kind, besides a first one that warms up; and how much longer the fastest of ours may take, as a factor.

Python is thirty times slower here than on a real machine, and `ip` is not.
"""


async def test_two_pods_ping_over_virtual_functions_of_two_cards_and_a_third_in_another_vlan_does_not():
    cards, tokens = Cards(), new_tokens()
    before = links()
    forwarder = cards.forwarder(tokens)
    await forwarder.start()
    one, other, apart = Host(), Host(), Host()
    (first, second), (third, _) = tokens.values()
    mac = "0a:55:44:33:22:00"
    live = await forwarder.create(wire(kernel(one, first), "10.0.0.1/24", mac=mac), "one", None, client("one"))
    await forwarder.create(wire(kernel(other, third), "10.0.0.2/24"), "other", None, client("other"))
    await forwarder.create(
        wire(kernel(apart, second, "nsm-9"), "10.0.0.3/24", vlan=100), "apart", None, client("apart")
    )
    assert live.parameters["pciAddress"] in os.listdir("/sys/bus/pci/drivers/igbvf")
    assert one.links()["nsm-1"]["address"] == mac
    assert one.pings("10.0.0.2") == 1
    assert apart.pings("10.0.0.2") == 0
    await forwarder.change(live, wire(kernel(one, first), "10.0.0.1/24", mac=mac, vlan=100))
    assert one.pings("10.0.0.3") == 1
    for each in ("one", "other", "apart"):
        await forwarder.remove(each)
    after = links()
    assert after.keys() == before.keys()
    for name in cards.interfaces:
        assert {each.get("vlan_list", [{}])[0].get("vlan", 0) for each in after[name]["vfinfo_list"]} == {0}
    await forwarder.aclose()


async def test_a_killed_forwarders_functions_stay_in_use_and_are_adopted_and_one_whose_pod_ended_comes_back():
    cards, tokens = Cards(), new_tokens()
    before = links()
    one, other = Host(), Host()
    (first, second), _ = tokens.values()
    pid = os.fork()
    if pid == 0:
        asyncio.new_event_loop().run_until_complete(make(cards, tokens, one, other))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    forwarder = cards.forwarder(tokens)
    await forwarder.start()
    assert one.pings("10.0.0.2") == 1
    assert {each.connection_id for each in await forwarder.owned()} == {"one", "other"}
    # another pod gets another function
    apart = Host()
    await forwarder.create(wire(kernel(apart, second), "10.0.0.3/24"), "apart", None, client("apart"))
    # the client requests again: nothing changes
    live = await forwarder.create(wire(kernel(one, first), "10.0.0.1/24"), "one", None, client("one"))
    assert await forwarder.resume(live, live.wire)
    assert one.pings("10.0.0.2") == 1
    # a pod ends, and its namespace with it
    os.close(other.descriptor)
    end = time.monotonic() + 20
    while len(links()) < len(before) - 2:
        assert time.monotonic() < end
        await asyncio.sleep(0.1)
    assert "other" not in {each.connection_id for each in await forwarder.owned()}
    for each in ("one", "apart"):
        await forwarder.remove(each)
    assert links().keys() == before.keys()
    await forwarder.aclose()


async def make(cards, tokens, one, other):
    (first, _), (third, _) = tokens.values()
    forwarder = cards.forwarder(tokens)
    await forwarder.start()
    await forwarder.create(wire(kernel(one, first), "10.0.0.1/24"), "one", None, client("one"))
    await forwarder.create(wire(kernel(other, third), "10.0.0.2/24"), "other", None, client("other"))


async def test_a_process_opens_its_vfio_device_as_long_as_its_connection_lives_and_another_pods_does_not():
    cards, tokens = Cards(), new_tokens()
    subprocess.run(["mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"], check=True)
    mine, others = Path("/sys/fs/cgroup/pods/pod1/main"), Path("/sys/fs/cgroup/pods/pod2/main")
    deny = _instruction(0xB7, 0, 0, 0, 0) + _instruction(0x95, 0, 0, 0, 0)
    for group in (mine, others):
        group.mkdir(parents=True)
        program.attach(str(group), deny)
    pods = [Pod(mine), Pod(others)]
    forwarder = cards.forwarder(tokens)
    await forwarder.start()
    token = tokens["master.domain/10G"][0]
    live = await forwarder.create(wire(vfio(token, pods[0].path), mac="0a:55:44:33:22:11"), "one", None, client("one"))
    found = live.parameters
    node = Path("/dev/vfio", found["iommuGroup"])
    assert found["pciAddress"] in os.listdir("/sys/bus/pci/drivers/vfio-pci")
    number = os.stat(node).st_rdev
    assert (os.major(number), os.minor(number)) == (int(found["deviceMajor"]), int(found["deviceMinor"]))
    assert [pod.opens(node) for pod in pods] == [True, False]
    assert pods[0].opens("/dev/vfio/vfio")
    # a forwarder that was started anew leaves the device to its pod, and revokes the permission
    again = cards.forwarder(tokens)
    await again.start()
    assert [each.is_used for each in await again.owned()] == [True]
    side = vfio(token, pods[0].path)
    side = type(side)(side.token, side.cgroup, side.path, found["pciAddress"])
    live = await again.create(wire(side), "one", None, client("one"))
    assert live.parameters == found
    await again.remove("one")
    assert [pod.opens(node) for pod in pods] == [False, False]
    assert not pods[0].opens("/dev/vfio/vfio")
    # the same function, for a pod that wants an interface
    host = Host()
    live = await again.create(wire(kernel(host, token), "10.0.0.1/24"), "kernel", None, client("kernel"))
    assert "nsm-1" in host.links()
    await again.remove("kernel")
    for dataplane in (forwarder, again):
        await dataplane.aclose()


async def test_a_wire_takes_hardly_longer_than_moving_a_function_by_hand():
    """The figure sriov_setup: from the request until packets can pass, by the forwarder's elements and by `ip`."""
    cards, tokens = Cards(), new_tokens()
    forwarder = cards.forwarder(tokens)
    await forwarder.start()
    token = tokens["master.domain/10G"][0]
    chain, ours, by_hand = requests(forwarder), [], []
    async with chain:
        for number in range(ROUNDS + 1):
            host = Host()
            begin = time.monotonic()
            call = request(host, token, f"c{number}")
            await chain.request(call)
            ours.append(time.monotonic() - begin)
            assert "nsm-1" in host.links()
            await chain.close(call)
            begin = time.monotonic()
            move_by_hand("eth2", host)
            by_hand.append(time.monotonic() - begin)
            host.ip("link set nsm-1 netns 1 name eth2")
    ratio = min(ours[1:]) / min(by_hand[1:])
    print(f"ours {ours}, by hand {by_hand}, ratio {ratio:.2f}")
    assert ratio < MOST


def move_by_hand(interface, host):
    """What an administrator does, and then waits for."""
    run(f"ip link set {interface} netns {host.path} name nsm-1")
    host.ip("address add 10.0.0.1/24 dev nsm-1")
    host.ip("link set nsm-1 up")
    while "LOWER_UP" not in host.ip("-o link show nsm-1"):
        pass


def requests(forwarder):
    """The elements of a forwarder's chain between the transport and the endpoint, which needs nothing of the mesh."""
    far_side = MechanismTranslation()
    served = {each.kind: each.served for each in functions_only(forwarder).supported}
    return Chain([Begin(), Mechanisms(served), MakeWire(forwarder, far_side), far_side, OfferNoop(), Accept()])


def request(host, token, identity):
    parameters = {"inodeURL": f"file://{host.path}", "name": "nsm-1", "tokenID": token}
    context = ConnectionContext(ip_context=IpContext(src_ip_addrs=["10.0.0.1/24"]))
    connection = Connection(id=identity, payload="ETHERNET", context=context)
    preference = Mechanism(cls="LOCAL", type="KERNEL", parameters=parameters)
    return Call(NetworkServiceRequest(connection=connection, mechanism_preferences=[preference]))


class Accept(Element):
    """An endpoint that accepts the first offer."""

    async def request(self, call, rest):
        call.connection.mechanism = call.request.mechanism_preferences[0]
        return await rest.request(call)


class Pod:
    """A process in a control group and a network of its own, which opens files when asked."""

    def __init__(self, group):
        self._asks, theirs = os.pipe()
        mine, self._tells = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            namespaces.enter(namespaces.new_network(), namespaces.NEW_NET)
            (group / "cgroup.procs").write_text(str(os.getpid()))
            os.write(theirs, b"!")
            while path := os.read(mine, 4096):
                os.write(theirs, b"1" if can_open(path.decode()) else b"0")
            os._exit(0)
        assert os.read(self._asks, 1) == b"!"
        self.path = f"/proc/{self.pid}/ns/net"

    def opens(self, path):
        os.write(self._tells, str(path).encode())
        return os.read(self._asks, 1) == b"1"


def can_open(path):
    try:
        os.close(os.open(path, os.O_RDWR))
    except PermissionError as error:
        print(error)
        return False
    return True

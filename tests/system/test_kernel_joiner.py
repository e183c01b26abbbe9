"""Interfaces of a pass-through endpoint, joined in the kernel: by a bridge, or by forwarding."""

import asyncio
import os
import shlex
import subprocess
import sys
import textwrap

import pytest

from nsm.chains.elements.join_sides import Pair
from nsm.chains.elements.kernel_joiner import KernelJoiner
from nsm.chains.netlink.namespaces import entered
from tests.system.forwarder_kernel.hosts import Host

pytestmark = pytest.mark.system


class Stage:
    """A network namespace between others, in which this thread is."""

    def __init__(self):
        self.host, self.others, self.joined = Host(), [], []

    def far_side(self, name, own, other, *, payload, host=None):
        """A host behind the interface `name`: it has the address `own` and reaches `other`, as forwarders set it up."""
        host = host or self.add()
        self.host.run("ip", "link", "add", name, "type", "veth", "peer", "w-1", "netns", host.path)
        host.run("ip", "address", "add", f"{own}/32", "dev", "w-1")
        if payload == "IP":
            macs = self.host.links()[name]["address"], host.links()["w-1"]["address"]
            for each, device in ((host, "w-1"), (self.host, name)):
                each.run("ip", "link", "set", device, "arp", "off")
        self.host.run("ip", "link", "set", name, "up")
        host.run("ip", "link", "set", "w-1", "up")
        host.run("ip", "route", "add", other, "dev", "w-1")
        if payload == "IP":
            host.run("ip", "neighbor", "add", other, "lladdr", macs[0], "dev", "w-1")
            self.host.run("ip", "neighbor", "add", own, "lladdr", macs[1], "dev", name)
        return host

    def add(self):
        host = Host()
        host.run("ip", "link", "set", "lo", "up")
        self.others.append(host)
        return host

    def on_joined(self, *names):
        self.joined.append(names)

    async def until_joined(self, times):
        async with asyncio.timeout(5):
            while len(self.joined) < times:
                await asyncio.sleep(0.005)


@pytest.fixture
def stage():
    made = Stage()
    with entered(made.host.descriptor):
        yield made
    for host in (made.host, *made.others):
        os.close(host.descriptor)


@pytest.fixture
async def joiner(stage):
    made = KernelJoiner()
    yield made
    await made.aclose()


def pair(mark="00000001", payload="ETHERNET", client="10.0.0.1", service="10.0.0.0"):
    return Pair(f"in-{mark}", f"out-{mark}", payload, (f"{client}/32",), (f"{service}/32",))


@pytest.mark.parametrize("payload", ["ETHERNET", "IP"])
async def test_packets_pass_as_soon_as_both_interfaces_are_there_and_when_one_comes_back(stage, joiner, payload):
    wanted = pair(payload=payload)
    stage.far_side(wanted.server_side, "10.0.0.0", "10.0.0.1", payload=payload)
    joiner.join(wanted, stage.on_joined)
    assert stage.joined == []
    client = stage.far_side(wanted.client_side, "10.0.0.1", "10.0.0.0", payload=payload)
    await stage.until_joined(1)
    assert stage.joined == [(wanted.client_side, wanted.server_side)]
    assert client.pings("10.0.0.0")
    stage.host.run("ip", "link", "delete", wanted.client_side)
    stage.far_side(wanted.client_side, "10.0.0.1", "10.0.0.0", payload=payload, host=client)
    await stage.until_joined(2)
    assert client.pings("10.0.0.0")
    await joiner.leave(wanted.client_side)
    assert not client.pings("10.0.0.0")
    assert set(stage.host.links()) == {wanted.client_side, wanted.server_side}
    assert "in-" not in stage.host.run("ip", "rule")


async def test_clients_of_two_services_may_have_the_same_addresses(stage, joiner):
    """What arrives from each of them leaves to its own service."""
    clients = {}
    for mark in ("00000001", "00000002"):
        wanted = pair(mark, "IP")
        service = stage.far_side(wanted.server_side, "10.0.0.0", "10.0.0.1", payload="IP")
        clients[mark] = stage.far_side(wanted.client_side, "10.0.0.1", "10.0.0.0", payload="IP"), service
        joiner.join(wanted, stage.on_joined)
    for client, service in clients.values():
        before = received(service)
        assert client.pings("10.0.0.0")
        assert received(service) > before


def received(host):
    return host.json("-s", "link", "show", "w-1")[0]["stats64"]["rx"]["packets"]


async def test_nothing_passes_elsewhere_while_the_other_interface_is_missing(stage, joiner):
    """The stage's own network would forward it."""
    wanted = pair(payload="IP")
    client = stage.far_side(wanted.client_side, "10.0.0.1", "10.9.9.9", payload="IP")
    outside = stage.far_side("eth0", "10.9.9.9", "10.0.0.1", payload="IP")
    stage.host.run("sysctl", "-qw", "net.ipv4.conf.all.forwarding=1")
    stage.host.run("ip", "route", "add", "10.9.9.9", "dev", "eth0")
    stage.host.run("ip", "route", "add", "10.0.0.1", "dev", wanted.client_side)
    assert client.pings("10.9.9.9")
    joiner.join(wanted, stage.on_joined)
    before = received(outside)
    assert not client.pings("10.9.9.9")
    assert received(outside) == before


@pytest.mark.parametrize("payload", ["ETHERNET", "IP"])
async def test_an_address_that_a_forwarder_gives_nevertheless_does_not_answer_in_place_of_the_service(
    stage, joiner, payload
):
    """Others' forwarders do not know bare interfaces."""
    wanted = pair(payload=payload)
    joiner.join(wanted, stage.on_joined)
    service = stage.far_side(wanted.server_side, "10.0.0.0", "10.0.0.1", payload=payload)
    client = stage.far_side(wanted.client_side, "10.0.0.1", "10.0.0.0", payload=payload)
    stage.host.run("ip", "address", "add", "10.0.0.0/32", "dev", wanted.client_side)
    await stage.until_joined(1)
    before = received(service)
    assert client.pings("10.0.0.0")
    assert received(service) > before


async def test_what_was_joined_passes_packets_while_the_endpoint_is_away_and_is_taken_over(stage):
    wanted, first = pair(), KernelJoiner()
    stage.far_side(wanted.server_side, "10.0.0.0", "10.0.0.1", payload="ETHERNET")
    client = stage.far_side(wanted.client_side, "10.0.0.1", "10.0.0.0", payload="ETHERNET")
    first.join(wanted, stage.on_joined)
    await first.aclose()
    assert client.pings("10.0.0.0")
    second = KernelJoiner()
    second.join(wanted, stage.on_joined)
    assert client.pings("10.0.0.0")
    await second.leave(wanted.client_side)
    assert not client.pings("10.0.0.0")
    await second.aclose()


def test_without_the_right_to_change_interfaces_the_endpoint_says_so():
    script = """
        import os
        from nsm.chains.core import Refused
        from nsm.chains.elements.kernel_joiner import KernelJoiner
        os.setgid(65534); os.setuid(65534)
        try:
            KernelJoiner()
        except Refused as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.stdout == "joining interfaces needs CAP_NET_ADMIN in this process's network namespace\n", done.stderr


def test_a_stage_needs_no_more_than_one_capability_and_no_writable_proc_sys():
    """As in a pod: IPv4 is forwarded all the same, and for IPv6 it says what is missing."""
    script = """
        import subprocess
        from nsm.chains.core import Unavailable
        from nsm.chains.elements.join_sides import Pair
        from nsm.chains.elements.kernel_joiner import KernelJoiner
        import asyncio

        async def main():
            joiner = KernelJoiner()
            subprocess.run("ip link add in-00000001 type veth peer out-00000001".split(), check=True)
            for name in ("in-00000001", "out-00000001"):
                subprocess.run(["ip", "link", "set", name, "up"], check=True)
            joiner.join(Pair("in-00000001", "out-00000001", "IP", ("10.0.0.1/32",), ("10.0.0.0/32",)), lambda *_: None)
            print(subprocess.run(["ip", "netconf", "show", "dev", "in-00000001"], capture_output=True, text=True).stdout)
            try:
                joiner.join(Pair("in-2", "out-2", "IP", ("fd00::1/128",), ("fd00::/128",)), lambda *_: None)
            except Unavailable as error:
                print(error)
            await joiner.aclose()

        asyncio.run(main())
    """
    only = ["--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin", "--no-new-privs"]
    as_in_a_pod = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec setpriv "
    words = [*only, sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", f"{as_in_a_pod} {shlex.join(words)}"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert "inet in-00000001 forwarding on" in done.stdout, done.stderr
    assert "set the sysctl net.ipv6.conf.all.forwarding=1 for this network namespace" in done.stdout

"""Whether a client notices that no packets pass: by echoes and by what the kernel reports, on real interfaces."""

import asyncio
import contextlib
import os
import time

import pytest
from structlog.testing import capture_logs

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.chains.elements.kernel_liveness import KernelLiveness
from nsm.chains.netlink.namespaces import entered
from tests.system.forwarder_kernel.hosts import Host

pytestmark = pytest.mark.system

NOTICED = 0.1
"""Seconds, as a mark: `cut_noticed_s`."""


@pytest.fixture
def client():
    """This thread is in the client's network namespace; the endpoint is at the other end of nsm-1."""
    client, endpoint = Host(), Host()
    client.run("ip", "link", "add", "nsm-1", "type", "veth", "peer", "nse-1", "netns", endpoint.path)
    for host, name, near, far in ((client, "nsm-1", 1, 0), (endpoint, "nse-1", 0, 1)):
        for version, prefix in (("-4", "10.0.0."), ("-6", "fd00::")):
            host.run("ip", version, "address", "add", f"{prefix}{near}", "dev", name, *(["nodad"] * (version == "-6")))
        host.run("ip", "link", "set", name, "up")
        for prefix in ("10.0.0.", "fd00::"):
            host.run("ip", "route", "add", f"{prefix}{far}", "dev", name)
        host.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    client.endpoint = endpoint
    with entered(client.descriptor):
        yield client
    for host in (client, endpoint):
        os.close(host.descriptor)


def wire(sources=("10.0.0.1/32", "fd00::1/128"), targets=("10.0.0.0/32", "fd00::/128"), kind="KERNEL", name="nsm-1"):
    context = ConnectionContext(ip_context=IpContext(src_ip_addrs=list(sources), dst_ip_addrs=list(targets)))
    return Connection(id="c", mechanism=Mechanism(type=kind, parameters={"name": name}), context=context)


async def test_a_wire_whose_addresses_all_answer_is_alive_and_that_takes_a_round_trip(client):
    liveness = KernelLiveness(1.0)
    began = time.monotonic()
    assert await liveness.is_alive(wire())
    assert time.monotonic() - began < 0.25


async def test_a_wire_whose_ends_are_in_one_namespace_is_alive(client):
    """Processes of one namespace may be client and endpoint: the kernel has their packets take a shorter way."""
    for address in ("10.9.0.0/32", "10.9.0.1/32"):
        client.run("ip", "address", "add", address, "dev", "nsm-1")
    client.run("ip", "link", "set", "lo", "up")
    assert await KernelLiveness(1.0).is_alive(wire(["10.9.0.1/32"], ["10.9.0.0/32"]))


@pytest.mark.parametrize(
    "wire_", [wire(kind="MEMIF"), wire([], []), wire(["10.0.0.1/32"], ["fd00::/128"]), Connection()]
)
async def test_what_has_nothing_to_ping_is_not_checked(client, wire_):
    client.run("ip", "link", "set", "nsm-1", "down")
    assert await KernelLiveness(0.1).is_alive(wire_) is None


@pytest.mark.parametrize(
    "cut",
    [
        ("client", "ip", "link", "set", "nsm-1", "down"),
        ("client", "ip", "link", "delete", "nsm-1"),
        ("client", "ip", "address", "delete", "10.0.0.1/32", "dev", "nsm-1"),
        ("client", "ip", "route", "delete", "fd00::", "dev", "nsm-1"),
        ("endpoint", "ip", "link", "set", "nse-1", "down"),
        ("endpoint", "ip", "-6", "address", "flush", "dev", "nse-1"),
        ("endpoint", "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1"),
    ],
    ids=" ".join,
)
async def test_a_wire_with_an_address_that_does_not_answer_is_dead(client, cut):
    where, *command = cut
    (client if where == "client" else client.endpoint).run(*command)
    began = time.monotonic()
    assert not await KernelLiveness(0.2).is_alive(wire())
    assert time.monotonic() - began < 0.4


async def test_one_of_four_echoes_that_comes_back_will_do(client):
    client.endpoint.run("sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1")
    checking = asyncio.ensure_future(KernelLiveness(2.0).is_alive(wire()))
    await asyncio.sleep(0.3)
    client.endpoint.run("sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=0")
    assert await checking


async def test_a_wire_that_was_renamed_is_found_by_its_addresses(client):
    client.run("ip", "link", "set", "nsm-1", "name", "mine")
    liveness, told = KernelLiveness(0.2), []
    assert await liveness.is_alive(wire())
    stop = liveness.watch(wire(), told.append)
    await asyncio.sleep(0.05)
    assert told == []
    client.run("ip", "link", "set", "mine", "down")
    await until(lambda: told)
    stop()


async def test_a_client_that_may_not_ping_says_once_what_is_missing_and_ends_no_wire(client):
    """A group range that ends before it begins has nobody in it; whoever may do everything is in no other case."""
    client.run("sysctl", "-qw", "net.ipv4.ping_group_range=1 0")
    client.run("ip", "link", "set", "nsm-1", "down")
    liveness, told = KernelLiveness(0.2), []
    with capture_logs() as logs:
        assert await liveness.is_alive(wire()) is None
        assert await liveness.is_alive(wire()) is None
    (line,) = logs
    assert "net.ipv4.ping_group_range" in line["missing"]
    liveness.watch(wire(), told.append)
    await until(lambda: told == ["it was set down"])


@pytest.mark.parametrize(
    "cut",
    [
        ("client", "ip", "link", "set", "nsm-1", "down"),
        ("client", "ip", "link", "delete", "nsm-1"),
        ("client", "ip", "link", "set", "nsm-1", "netns", "ENDPOINT"),
        ("endpoint", "ip", "link", "delete", "nse-1"),
    ],
    ids=" ".join,
)
async def test_a_link_that_goes_down_is_noticed_at_once(client, cut):
    told, other = [], []
    liveness = KernelLiveness()
    client.run("ip", "link", "add", "other", "type", "veth", "peer", "end")
    for name in ("other", "end"):
        client.run("ip", "link", "set", name, "up")
    stop = liveness.watch(wire(), lambda reason: told.append((reason, time.monotonic())))
    stop_other = liveness.watch(wire(name="other"), other.append)
    await asyncio.sleep(0.05)
    assert told == []
    where, *words = cut
    words = [client.endpoint.path if word == "ENDPOINT" else word for word in words]
    command = await asyncio.create_subprocess_exec(
        "nsenter", f"--net={(client if where == 'client' else client.endpoint).path}", *words
    )
    await command.wait()
    ended = time.monotonic()
    await until(lambda: told)
    ((reason, at),) = told
    assert reason in {"it was set down", "it was deleted"}  # the kernel sets a link down before it deletes it
    assert other == []
    assert at - ended < NOTICED
    stop()
    stop_other()


async def test_another_end_that_goes_down_is_noticed_at_once_when_the_wire_is_checked(client):
    """The kernel itself tells of it up to a second later: it collects changes of carriers."""
    told, liveness = [], KernelLiveness(0.2)
    stop = liveness.watch(wire(), told.append)
    client.endpoint.run("ip", "link", "set", "nse-1", "down")
    checking = asyncio.ensure_future(liveness.is_alive(wire()))
    began = time.monotonic()
    await until(lambda: told == ["its other end is down or gone"])
    assert time.monotonic() - began < NOTICED
    assert not await checking
    stop()


async def test_a_link_that_is_down_or_gone_already_is_noticed_too(client):
    client.run("ip", "link", "set", "nsm-1", "down")
    told = []
    KernelLiveness().watch(wire(), told.append)
    KernelLiveness().watch(wire(sources=["10.9.9.9/32"], name="none"), told.append)
    await until(lambda: sorted(told) == ["it was set down", "there is no interface 'none'"])


async def test_who_stopped_to_watch_hears_nothing_and_nothing_stays_open(client):
    before = open_sockets()
    told, liveness = [], KernelLiveness()
    stops = [liveness.watch(wire(), told.append) for _ in range(100)]
    assert len(open_sockets() - before) == 1
    stops.append(liveness.watch(wire(name="none", sources=()), told.append))
    for stop in stops:
        stop()
    client.run("ip", "link", "set", "nsm-1", "down")
    assert not await liveness.is_alive(wire())
    assert told == []
    assert open_sockets() <= before


def open_sockets():
    """This process's sockets by their inodes; what earlier tests left may be closed meanwhile."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {each for each in found if each.startswith("socket:")}


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("is_repaired", [True, False])
async def test_a_link_that_its_forwarder_sets_up_again_is_no_reason_to_leave_the_endpoint(client, is_repaired):
    liveness, told = KernelLiveness(0.2, patience=0.3), []
    cut = wire(["10.0.0.1/32"], ["10.0.0.0/32"])
    stop = liveness.watch(cut, told.append)
    client.run("ip", "link", "set", "nsm-1", "down")
    checking = asyncio.ensure_future(liveness.is_alive(cut))
    await asyncio.sleep(0.05)
    assert told == []
    if is_repaired:
        client.run("ip", "link", "set", "nsm-1", "up")
        client.run("ip", "route", "replace", "10.0.0.0", "dev", "nsm-1")
        assert await checking
        assert told == []
    else:
        assert not await checking
        await until(lambda: told == ["it was set down"])
    stop()

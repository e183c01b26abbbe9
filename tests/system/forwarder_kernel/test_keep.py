"""What somebody changes on a wire by hand, and what becomes of it: one mesh, one wire, real namespaces."""

import asyncio
import os
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest

from nsm.apis.connection import MonitorScopeSelector, PathSegment, State
from nsm.chains.forwarding.keep import CHANGES, Keep
from nsm.chains.forwarding.pace import Pace
from nsm.chains.transport import RemoteMonitor

from .nodes import Underlay, ask, mesh_at

pytestmark = pytest.mark.system

WITHIN = 15.0
"""Seconds in which everything has to be as it was: some milliseconds, unless the machine is busy."""


class Wire:
    """The wire of one client, seen from outside."""

    def __init__(self, loop, mesh, host, chain, connection):
        self.loop, self.mesh, self.host, self.chain = loop, mesh, host, chain
        self.endpoint = mesh.workloads["nse"]
        (self.name,) = host.links()
        (self.far_name,) = self.endpoint.links()
        ip = connection.context.ip_context
        self.own, self.opposite = (text.split("/")[0] for text in (ip.src_ip_addrs[0], ip.dst_ip_addrs[0]))
        self.index = host.links()[self.name]["ifindex"]
        self.whole = self.state()

    def state(self):
        """All that the two ends have."""
        seen = []
        for host in (self.host, self.endpoint):
            routes = {(route["dst"], route.get("gateway")) for route in host.json("route") if "dev" in route}
            links = [
                (link["ifindex"], link["mtu"], link["address"], link.get("ifalias"), "UP" in link["flags"])
                for link in host.links().values()
            ]
            addresses = {
                each["local"]
                for link in host.links().values()
                for each in link["addr_info"]
                if each["scope"] == "global"
            }
            neighbors = {
                (each["dst"], each.get("lladdr")) for each in host.json("neighbor") if "PERMANENT" in each["state"]
            }
            seen.append((links, addresses, routes, neighbors))
        return seen

    def comes_back(self):
        """Everything is as it was, soon, and packets pass."""
        self.until(lambda: self.state() == self.whole)
        assert self.host.pings(self.opposite)

    def until(self, condition):
        end = time.monotonic() + WITHIN
        while not condition():
            assert time.monotonic() < end, self.state()
            time.sleep(0.02)

    def refresh(self):
        """Send the client's request again."""
        return self.loop.run(connect(self.chain))


class Loop:
    """An event loop in a thread of its own: the mesh goes on from test to test."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture(scope="module")
def loop():
    made = Loop()
    yield made
    made.close()


@pytest.fixture(scope="module")
def wire(loop, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        running = mesh_at(tmp_path_factory.mktemp("keep"))
        mesh = loop.run(running.__aenter__())
        try:
            loop.run(mesh.add_node("1", Underlay().node("10.77.0.1/24"), patch))
            loop.run(mesh.add_endpoint("nse", "1", "service", "IP", "172.16.1.0/24"))
            host, chain = loop.run(mesh.add_client("nsc", "1"))
            made = Wire(loop, mesh, host, chain, loop.run(connect(chain)))
            made.until(lambda: not mesh.planes["1"].open_namespaces())
            yield made
            loop.run(disconnect(chain))
        finally:
            loop.run(running.__aexit__(None, None, None))


@pytest.fixture(autouse=True)
def calm(wire):
    """No test counts the repairs of the others."""
    for watched in the_keep(wire)._all:
        watched.pace = Pace()


async def connect(chain, service="service"):
    return await chain.request(ask(service))


async def disconnect(chain):
    await chain.close(ask("service"))


def test_a_link_that_was_set_down_is_up_again(wire, capsys):
    wire.host.run("ip", "link", "set", wire.name, "down")
    wire.comes_back()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "wire put right" in line]
    assert f"{wire.name}: link down, neighbor 172.16.1.0 gone" in line
    assert "endpoint=nse" in line
    assert "service=service" in line


def test_a_link_that_was_set_down_and_up_has_its_routes_again(wire):
    wire.host.run("sh", "-c", f"ip link set {wire.name} down; ip link set {wire.name} up")
    wire.comes_back()


def test_the_endpoints_end_that_was_set_down_is_up_again(wire):
    wire.endpoint.run("ip", "link", "set", wire.far_name, "down")
    wire.comes_back()


def test_a_neighbor_that_was_removed_is_known_again(wire):
    wire.host.run("ip", "neighbor", "delete", wire.opposite, "dev", wire.name)
    wire.comes_back()


def test_an_address_that_was_removed_is_there_again_with_its_routes(wire):
    wire.host.run("ip", "address", "flush", "dev", wire.name)
    wire.comes_back()


def test_a_route_that_was_removed_or_replaced_leads_over_the_wire_again(wire):
    wire.host.run("ip", "route", "delete", wire.opposite)
    wire.comes_back()
    wire.host.run("ip", "route", "replace", "blackhole", wire.opposite)
    wire.until(lambda: wire.host.pings(wire.opposite))
    wire.host.run("ip", "route", "delete", "blackhole", wire.opposite)
    wire.comes_back()


def test_another_mtu_is_set_back(wire):
    wire.endpoint.run("ip", "link", "set", wire.far_name, "mtu", "1000")
    wire.comes_back()


def test_a_link_that_was_deleted_is_made_anew_as_it_was(wire):
    wire.endpoint.run("ip", "link", "delete", wire.far_name)
    wire.comes_back()


def test_what_an_administrator_added_stays(wire):
    host, name = wire.host, wire.name
    host.run("ip", "address", "add", "192.0.2.1/24", "dev", name)
    host.run("ip", "route", "add", "198.51.100.0/24", "via", wire.opposite, "dev", name, "onlink")
    host.run("ip", "neighbor", "delete", wire.opposite, "dev", name)
    wire.until(lambda: wire.opposite in {each["dst"] for each in host.json("neighbor")})
    assert "192.0.2.1" in {each["local"] for each in host.links()[name]["addr_info"]}
    assert "198.51.100.0/24" in {route["dst"] for route in host.json("route")}
    host.run("ip", "route", "delete", "198.51.100.0/24")
    host.run("ip", "address", "delete", "192.0.2.1/24", "dev", name)
    wire.comes_back()


def test_a_router_that_advertises_is_not_followed_after_somebody_allowed_it(wire):
    host = wire.host
    host.run("sysctl", "-qw", f"net.ipv6.conf.{wire.name}.accept_ra=2")
    host.run("ip", "-6", "route", "add", "2001:db8::/64", "dev", wire.name, "proto", "ra")
    wire.until(lambda: "2001:db8" not in host.run("ip", "-6", "route"))
    assert host.run("cat", f"/proc/sys/net/ipv6/conf/{wire.name}/accept_ra").strip() == "0"
    wire.comes_back()


def test_a_renamed_interface_is_kept_and_looked_after_and_the_next_refresh_leaves_it(wire):
    host = wire.host
    before = CHANGES["renamed"]
    host.run("sh", "-c", f"ip link set {wire.name} down; ip link set {wire.name} name uplink")
    wire.comes_back()
    assert CHANGES["renamed"] == before + 1
    again = wire.refresh()
    assert again.mechanism.parameters["name"] == wire.name
    assert host.links().keys() == {"uplink"}
    host.run("ip", "link", "set", "uplink", "down")
    wire.comes_back()
    host.run("sh", "-c", f"ip link set uplink down; ip link set uplink name {wire.name}")
    wire.comes_back()


def test_nothing_of_that_holds_a_namespace(wire):
    wire.until(lambda: wire.mesh.planes["1"].open_namespaces() == 0)


def test_who_only_wants_reports_keeps_what_was_changed(wire, capsys):
    keep = the_keep(wire)
    keep._repairs = False
    try:
        wire.host.run("ip", "link", "set", wire.name, "mtu", "1300")
        seen = ""
        while "wire is not as it should be" not in seen:
            seen += capsys.readouterr().out
            time.sleep(0.02)
        assert f"{wire.name}: MTU 1300" in seen
        assert wire.host.links()[wire.name]["mtu"] == 1300
    finally:
        keep._repairs = True
    wire.host.run("ip", "link", "set", wire.name, "mtu", "1301")
    wire.comes_back()


def test_changes_that_the_kernel_could_not_report_are_found(wire, monkeypatch):
    watcher = the_keep(wire)._dataplane
    with monkeypatch.context() as patch:
        patch.setattr(watcher._listener, "read", lambda most: None)
        wire.host.run("ip", "link", "set", wire.name, "down")
        wire.until(lambda: "UP" in wire.host.links()[wire.name]["flags"])
    wire.comes_back()


def test_where_no_namespace_can_be_entered_again_the_client_is_asked_to_come_back(wire):
    states = wire.loop.run(listen(wire.mesh, "nsc"))
    with without_handles(wire):
        wire.host.run("ip", "link", "set", wire.name, "down")
        wire.until(lambda: states[-1] == State.REFRESH_REQUESTED)
        assert wire.state() != wire.whole
        wire.refresh()
        wire.comes_back()


def test_without_handles_a_namespace_is_entered_by_a_process_that_is_in_it(wire):
    inside = [subprocess.Popen(["nsenter", f"--net={host.path}", "sleep", "60"]) for host in (wire.host, wire.endpoint)]
    try:
        for process, host in zip(inside, (wire.host, wire.endpoint), strict=True):
            wire.until(lambda process=process, host=host: os.path.samefile(f"/proc/{process.pid}/ns/net", host.path))
        with without_handles(wire):
            wire.host.run("ip", "link", "set", wire.name, "down")
            wire.comes_back()
    finally:
        for process in inside:
            process.kill()
            process.wait()


@contextmanager
def without_handles(wire):
    """As on kernels before Linux 6.18."""
    (watched,) = the_keep(wire)._all
    handles = [end.handle for end in watched.live.ends]
    for end in watched.live.ends:
        end.handle = b""
    try:
        yield
    finally:
        for end, handle in zip(watched.live.ends, handles, strict=True):
            end.handle = handle


def test_a_client_whose_namespace_ends_leaves_nothing_at_its_endpoint(wire):
    before = wire.endpoint.links()
    host, chain = wire.loop.run(wire.mesh.add_client("other", "1"))
    wire.loop.run(connect(chain))
    wire.until(lambda: not wire.mesh.planes["1"].open_namespaces())
    end_of(host)
    wire.until(lambda: wire.endpoint.links() == before)
    wire.until(lambda: len(wire.mesh.begins["nse"]) == len(wire.mesh.begins["forwarder-1"]) == 1)


def test_a_client_hears_at_once_that_its_endpoints_namespace_ended(wire):
    wire.loop.run(wire.mesh.add_endpoint("short", "1", "short-lived", "IP", "172.16.2.0/24"))
    host, chain = wire.loop.run(wire.mesh.add_client("third", "1"))
    wire.loop.run(connect(chain, "short-lived"))
    wire.until(lambda: not wire.mesh.planes["1"].open_namespaces())
    states = wire.loop.run(listen(wire.mesh, "third"))
    end_of(wire.mesh.workloads["short"])
    wire.until(lambda: State.DOWN in states)
    wire.until(lambda: not host.links())
    wire.loop.run(disconnect(chain))
    end_of(host)


def end_of(host):
    """Nobody holds its namespace any more."""
    os.close(host.descriptor)
    host.descriptor = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


async def listen(mesh, client):
    """The states of a client's connection as its manager tells them, from now on."""
    _, pool = await mesh.pool(client)
    selector = MonitorScopeSelector(path_segments=[PathSegment(name=client)])
    events = RemoteMonitor(pool, mesh.url("nsmgr-1")).monitor(selector)
    first = await anext(events)
    states = [connection.state for connection in first.connections.values()]
    assert states == [State.UP]

    async def go_on():
        async for event in events:
            states.extend(connection.state for connection in event.connections.values())

    task = asyncio.ensure_future(go_on())
    mesh.stack.callback(task.cancel)
    return states


def the_keep(wire):
    (keep,) = [each for each in wire.mesh.forwarders["1"].chain.elements if isinstance(each, Keep)]
    return keep

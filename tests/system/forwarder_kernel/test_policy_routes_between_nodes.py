"""Policy routes of a wire that crosses nodes: the client's forwarder installs them, the endpoint's has none."""

import ipaddress

import pytest

from nsm.apis.connectioncontext import PolicyRoute
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.model.ipcontext import ip_context_of
from tests.system.forwarder_kernel import nodes
from tests.system.forwarder_kernel.policies import Echo, nothing_is_left, received, rules, send

pytestmark = pytest.mark.system

SERVER = "203.0.113.9"


class WithPolicies(Point2PointIpam):
    """Addresses, and what goes by the wire besides."""

    async def request(self, call, rest):
        ip_context_of(call.connection).policies = [PolicyRoute(proto="17", dst_port="80")]
        return await super().request(call, rest)


async def test_packets_that_a_policy_selects_go_to_an_endpoint_on_another_node(tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "Point2PointIpam", WithPolicies)
    underlay = nodes.Underlay()
    async with nodes.mesh_at(tmp_path) as mesh:
        for name, address in (("a", "172.16.1.1"), ("b", "172.16.1.2")):
            host = underlay.node(f"{address}/24")
            await mesh.add_node(name, host, monkeypatch, tunnel_ip=ipaddress.ip_address(address))
        server = await add(mesh, "nse", "b")
        host, client = await mesh.add_client("client", "a")
        await client.request(nodes.ask("frames"))
        assert rules(host) == [("all", "udp", 80)]
        assert nothing_is_left(server)
        echo = Echo(server, SERVER, [80, 81])
        try:
            send(host, "10.1.0.1", SERVER, 80)
            assert received([echo]) == [[80]]
            with pytest.raises(OSError, match="unreachable"):
                send(host, "10.1.0.1", SERVER, 81)
        finally:
            echo.close()
        await client.close(nodes.ask("frames"))
        assert nothing_is_left(host)
        assert mesh.links() == {}


async def add(mesh, name, node):
    await mesh.add_endpoint(name, node, "frames", "ETHERNET", "10.1.0.0/24")
    server = mesh.workloads[name]
    server.run("ip", "link", "set", "lo", "up")
    server.run("ip", "address", "add", f"{SERVER}/32", "dev", "lo")
    return server

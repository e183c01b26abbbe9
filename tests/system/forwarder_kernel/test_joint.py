"""A bare interface is a part of what its holder has prepared as soon as there is a wire: the first packet passes."""

import os

import pytest

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.chains.elements.join_sides import Pair
from nsm.chains.elements.kernel_joiner import KernelJoiner
from nsm.chains.forwarding.sides import KernelInterface
from nsm.chains.forwarding.wires import wire_of
from nsm.chains.netlink.namespaces import entered
from tests.system.forwarder_kernel.hosts import Host

pytestmark = pytest.mark.system

IN, OUT = "in-1a2b3c4d", "out-1a2b3c4d"


@pytest.fixture
def stage():
    host = Host()
    yield host
    os.close(host.descriptor)


def connection(payload, src, dst):
    context = ConnectionContext(ip_context=IpContext(src_ip_addrs=[src], dst_ip_addrs=[dst]))
    return Connection(payload=payload, context=context)


@pytest.mark.parametrize("payload", ["IP", "ETHERNET"])
@pytest.mark.parametrize(("src", "dst"), [("10.0.0.1/32", "10.0.0.0/32"), ("fd00::1/128", "fd00::/128")])
async def test_the_first_packet_passes_a_stage_as_soon_as_its_clients_wire_is_made(
    hosts, stage, dataplane, payload, src, dst
):
    """Nothing of the joiner runs between the creation of the wire and the ping."""
    client, service = hosts
    asked = connection(payload, src, dst)
    onward = KernelInterface(stage.path, OUT, is_bare=True), KernelInterface(service.path, "nse-1")
    await dataplane.create(wire_of(asked, *onward), "onward")
    with entered(stage.descriptor):
        joiner, joined = KernelJoiner(), []
        part = joiner.join(Pair(IN, OUT, payload, (src,), (dst,)), lambda *names: joined.append(names))
        near = KernelInterface(client.path, "nsm-1"), KernelInterface(stage.path, IN, is_bare=True, joint=part)
        await dataplane.create(wire_of(asked, *near), "near")
        await joiner.aclose()
        assert client.pings(dst.partition("/")[0])
        assert service.pings(src.partition("/")[0])
    shown = stage.links()
    assert {name for name in shown if not name.startswith("br-")} == {IN, OUT}
    for name in (IN, OUT):
        assert [each for each in shown[name]["addr_info"] if each["scope"] == "global"] == []


@pytest.mark.parametrize(("payload", "joint"), [("ETHERNET", "br-1a2b3c4d"), ("IP", str(1 << 30))])
async def test_a_wire_is_made_also_if_nothing_is_prepared(hosts, stage, dataplane, payload, joint):
    """The holder may have gone: its own joiner does it when it is back."""
    client, _ = hosts
    side = KernelInterface(stage.path, IN, is_bare=True, joint=joint)
    made = wire_of(connection(payload, "10.0.0.1/32", "10.0.0.0/32"), KernelInterface(client.path, "nsm-1"), side)
    await dataplane.create(made, "near")
    assert set(stage.links()) == {IN}

"""One forwarder for clients with a token and for those without: who is offered what, and what their wires are made of."""

import ipaddress

from nsm.chains.forwarding.dataplane import Client
from nsm.chains.forwarding.sides import KernelInterface, Memif, Nothing, VirtualFunction
from nsm.chains.forwarding.wires import End, Wire
from nsm.chains.policy import NO_TRUST
from nsm.forwarder_sriov.main import SriovConfig
from nsm.forwarder_sriov.parts import functions_only, is_of_functions, with_kernel_wires
from tests.forwarder_sriov.tree import given

NAME = "worker.domain/10G"
CLIENT = Client(("spiffe://mesh/client",), "client-0")


def wire(one, other):
    return Wire(End(one), End(other, is_endpoints=True), 0, True)


def test_clients_with_a_token_and_those_that_need_nothing_are_for_functions():
    assert is_of_functions(KernelInterface("/ns", "nsm-1", "sriov-1"))
    assert is_of_functions(VirtualFunction("sriov-1", "/a/b/*"))
    assert is_of_functions(Nothing())
    assert not is_of_functions(KernelInterface("/ns", "nsm-1"))
    assert not is_of_functions(Memif("@a", ""))


async def test_both_kinds_of_wires_are_made_and_removed_by_one_dataplane(node, hosts):
    sriov, tokens, _ = await node.forwarder()
    config = SriovConfig(sriov_config_file=(node.card,), kernel_wires=True)
    parts = with_kernel_wires(sriov, config, NO_TRUST)
    one, other = hosts
    function = wire(KernelInterface(one.path, "nsm-1", given(tokens, NAME)), Nothing())
    plain = wire(KernelInterface(one.path, "nsm-2"), KernelInterface(other.path, "nse-1"))
    await parts.dataplane.create(function, "a", None, CLIENT)
    await parts.dataplane.create(plain, "b", None, CLIENT)
    assert set(one.links()) == {"nsm-1", "nsm-2"}
    assert node.functions() == {"eth0v1", "eth0v2"}
    assert {each.connection_id for each in await parts.dataplane.owned()} == {"a", "b"}
    await parts.dataplane.remove("a")
    await parts.dataplane.remove("b")
    assert one.links() == {}
    assert node.functions() == {"eth0v0", "eth0v1", "eth0v2"}
    for element in (*parts.watchers, *parts.around):
        await element.aclose()
    await parts.dataplane.aclose()


async def test_tunnels_and_uplinks_are_supported_beside_functions(node):
    sriov, *_ = await node.forwarder()
    assert [each.kind for each in functions_only(sriov).supported] == ["KERNEL", "VFIO", "NOOP"]
    config = SriovConfig(
        sriov_config_file=(node.card,), kernel_wires=True, tunnel_ip=ipaddress.ip_address("172.16.0.1")
    )
    parts = with_kernel_wires(sriov, config, NO_TRUST)
    assert [each.kind for each in parts.supported] == ["KERNEL", "VFIO", "NOOP", "VXLAN", "WIREGUARD"]
    await parts.dataplane.aclose()

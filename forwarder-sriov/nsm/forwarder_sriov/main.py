"""The SR-IOV forwarder as a component."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

from nsm.chains.component import Runtime, run
from nsm.chains.composed.forwarder import forwarder
from nsm.chains.config import duration, flag, text, variable
from nsm.chains.devices import Permissions
from nsm.chains.forwarding.counters import Counters
from nsm.chains.forwarding.protect_node import underlay_of
from nsm.chains.logs import log
from nsm.chains.serving.forwarder import TunnelConfig, serve_forwarder
from nsm.forwarder_kernel.underlay import check_tunnel_address

from .configuration import Card, cards_from
from .dataplane import SriovDataplane
from .device_plugin import DevicePlugins
from .kubelet import PodResources
from .parts import functions_only, with_kernel_wires
from .pool import Pool
from .sysfs import Pci
from .tokens import Tokens


def _cards(value: str) -> tuple[Card, ...] | None:
    return cards_from(value) if value else None


def _poll(value: str) -> float:
    if (seconds := duration(value)) < 1:
        raise ValueError("expected 1s or more")
    return seconds


@dataclass(frozen=True, kw_only=True)
class SriovConfig(TunnelConfig):
    """The settings of the SR-IOV forwarder."""

    name: str = variable("sriov-forwarder", text, "the name of this forwarder's path segment; unique in the mesh")
    sriov_config_file: tuple[Card, ...] | None = variable(
        "", _cards, "a YAML file with the node's network cards, and the names of their virtual functions; required"
    )
    kernel_wires: bool = variable(
        "false", flag, "create the wires of clients without a token too, of the kernel's interfaces"
    )
    pci_devices_path: str = variable("/sys/bus/pci/devices", text, "the folder of PCI functions")
    pci_drivers_path: str = variable("/sys/bus/pci/drivers", text, "the folder of their drivers")
    device_plugin_path: str = variable(
        "/var/lib/kubelet/device-plugins/", text, "the folder where the kubelet listens for device plugins"
    )
    pod_resources_path: str = variable(
        "/var/lib/kubelet/pod-resources/", text, "the folder where the kubelet says which pods have tokens"
    )
    resource_poll_timeout: float = variable("30s", _poll, "the time between two looks which pods have tokens")
    cgroup_path: str = variable(
        "/host/sys/fs/cgroup/devices", text, "the hierarchy 'devices' of cgroup v1; its parent, if that is cgroup v2"
    )
    vfio_path: str = variable("/host/dev/vfio", text, "the folder of the node's vfio devices")

    def misfits(self) -> Iterator[str]:
        """Rejects what only ordinary wires need if there are none, and a missing file of cards."""
        yield from super().misfits()
        if self.sriov_config_file is None:
            yield "NSM_SRIOV_CONFIG_FILE is not set: it names the file with the node's network cards"
        if not self.kernel_wires and (self.tunnel_ip or self.device_selector_file):
            yield "NSM_TUNNEL_IP and NSM_DEVICE_SELECTOR_FILE are for clients without a token: NSM_KERNEL_WIRES=true"


def main(arguments: list[str]) -> int:
    """Builds wires from virtual functions of network cards (SR-IOV)."""
    return run("forwarder-sriov", SriovConfig, _serve, arguments)


async def _serve(config: SriovConfig, runtime: Runtime) -> None:
    if config.tunnel_ip is not None:
        check_tunnel_address(config.tunnel_ip)
    pci, permissions = Pci(config.pci_devices_path, config.pci_drivers_path), Permissions(config.cgroup_path)
    cards = config.sriov_config_file or ()
    functions = [function for card in cards for function in pci.functions(card)]
    if any(function.group for function in functions):
        permissions.check()
    counts = {card.address: sum(each.card is card for each in functions) for card in cards}
    tokens = Tokens({card.address: card.names for card in cards}, counts)
    log.info("virtual functions", **{address.replace(":", "_"): count for address, count in counts.items()})
    resources = PodResources(config.pod_resources_path, set(tokens.names()))
    plugins = DevicePlugins(config.device_plugin_path, tokens, resources, poll=config.resource_poll_timeout)
    await plugins.restore()
    pool = Pool(pci, functions, tokens, config.vfio_path)
    sriov = SriovDataplane(config.name, pci, pool, permissions, resources.pod_of)
    await sriov.start()
    parts = with_kernel_wires(sriov, config, config.trust) if config.kernel_wires else functions_only(sriov)
    counters = Counters(parts.dataplane)
    chain = forwarder(
        config.name,
        runtime.identity,
        runtime.pool,
        parts.dataplane,
        parts.supported,
        nsmgr_url=config.connect_to,
        around=parts.around,
        watchers=[counters, *parts.watchers],
        underlay=underlay_of(config.tunnel_ip),
        policies=config.server_policies,
        answer_policies=config.client_policies,
        trust=config.trust,
        unchecked_namespaces=config.unchecked_namespaces,
        limits=config.limits,
        orphans=config.orphans(runtime),
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(plugins)
        await serve_forwarder(chain, config, runtime, parts.dataplane, counters)

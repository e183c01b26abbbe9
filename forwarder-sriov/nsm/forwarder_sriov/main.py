"""The SR-IOV forwarder as a component."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from nsm.apis.mechanisms import KERNEL, NOOP, VFIO
from nsm.chains.component import Runtime, run
from nsm.chains.composed.forwarder import forwarder
from nsm.chains.config import duration, text, variable
from nsm.chains.core import InvalidRequest
from nsm.chains.devices import Permissions
from nsm.chains.elements.noop import OfferNoop
from nsm.chains.forwarding.counters import Counters
from nsm.chains.forwarding.sriov_tokens import RequireToken
from nsm.chains.forwarding.supported import Supported
from nsm.chains.logs import log
from nsm.chains.serving.forwarder import ForwarderConfig, serve_forwarder
from nsm.forwarder_kernel.policy_routes import PolicyRoutes

from .configuration import Card, cards_from
from .dataplane import SriovDataplane
from .device_plugin import DevicePlugins
from .kubelet import PodResources
from .pool import Pool
from .sysfs import Pci
from .tokens import Tokens


def _cards(value: str) -> tuple[Card, ...]:
    return cards_from(value) if value else ()


def _poll(value: str) -> float:
    if (seconds := duration(value)) < 1:
        raise ValueError("expected 1s or more")
    return seconds


@dataclass(frozen=True, kw_only=True)
class SriovConfig(ForwarderConfig):
    """The settings of the SR-IOV forwarder."""

    name: str = variable("sriov-forwarder", text, "the name of this forwarder's path segment; unique in the mesh")
    sriov_config_file: tuple[Card, ...] = variable(
        "", _cards, "a YAML file with the node's network cards, and the names of their virtual functions; required"
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


def main(arguments: list[str]) -> int:
    """Builds wires from virtual functions of network cards (SR-IOV)."""
    return run("forwarder-sriov", SriovConfig, _serve, arguments)


def supported() -> Sequence[Supported]:
    """Its mechanisms: endpoints are offered that nothing is made at their side, since the card's network joins both."""
    return [
        Supported(kind=KERNEL, served=[RequireToken()]),
        Supported(kind=VFIO, served=[RequireToken()]),
        Supported(kind=NOOP, served=[], offered=[OfferNoop()]),
    ]


async def _serve(config: SriovConfig, runtime: Runtime) -> None:
    if not config.sriov_config_file:
        raise InvalidRequest("NSM_SRIOV_CONFIG_FILE is not set: it names the file with the node's network cards")
    pci, permissions = Pci(config.pci_devices_path, config.pci_drivers_path), Permissions(config.cgroup_path)
    functions = [function for card in config.sriov_config_file for function in pci.functions(card)]
    if any(function.group for function in functions):
        permissions.check()
    counts = {card.address: sum(each.card is card for each in functions) for card in config.sriov_config_file}
    tokens = Tokens({card.address: card.names for card in config.sriov_config_file}, counts)
    log.info("virtual functions", **{address.replace(":", "_"): count for address, count in counts.items()})
    resources = PodResources(config.pod_resources_path, set(tokens.names()))
    plugins = DevicePlugins(config.device_plugin_path, tokens, resources, poll=config.resource_poll_timeout)
    await plugins.restore()
    pool = Pool(pci, functions, tokens, config.vfio_path)
    dataplane = SriovDataplane(config.name, pci, pool, permissions, resources.pod_of)
    await dataplane.start()
    counters = Counters(dataplane)
    chain = forwarder(
        config.name,
        runtime.identity,
        runtime.pool,
        dataplane,
        supported(),
        nsmgr_url=config.connect_to,
        around=[PolicyRoutes(dataplane.kernel)],
        watchers=[counters],
        policies=config.server_policies,
        answer_policies=config.client_policies,
        trust=config.trust,
        unchecked_namespaces=config.unchecked_namespaces,
        limits=config.limits,
        orphans=config.orphans(runtime),
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(plugins)
        await serve_forwarder(chain, config, runtime, dataplane, counters, extra="nsm-forwarder-sriov[prometheus]")

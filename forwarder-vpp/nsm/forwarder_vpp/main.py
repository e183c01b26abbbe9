"""The VPP forwarder as a component."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

from nsm.apis.mechanisms import IPSEC, KERNEL, MEMIF, VLAN, VXLAN, WIREGUARD
from nsm.chains.component import Runtime, run
from nsm.chains.composed.forwarder import forwarder
from nsm.chains.config import duration, flag, number, text, variable
from nsm.chains.forwarding.counters import Counters
from nsm.chains.forwarding.keep import Keep
from nsm.chains.forwarding.kernel import kernel
from nsm.chains.forwarding.protect_node import underlay_of
from nsm.chains.forwarding.supported import Supported
from nsm.chains.forwarding.vlan import vlan
from nsm.chains.forwarding.vxlan import vxlan
from nsm.chains.forwarding.wireguard import wireguard
from nsm.chains.logs import log
from nsm.chains.reading import Field, read_yaml
from nsm.chains.serving.forwarder import mechanisms_among, serve_forwarder
from nsm.forwarder_kernel.capabilities import check_capabilities
from nsm.forwarder_kernel.main import KernelConfig
from nsm.forwarder_kernel.policy_routes import PolicyRoutes
from nsm.forwarder_kernel.watcher import Watcher

from .certificates import NodeKey
from .dataplane import Dataplane
from .grace import GracePeriods
from .ipsec import ipsec
from .memif import memif
from .names import Names
from .process import ExternalVPP, OwnVPP, Size
from .session import Session
from .uplinks import AF_PACKET, NO_INIT, Uplinks

OFFERED = (MEMIF, KERNEL, VXLAN, WIREGUARD, IPSEC, VLAN)
"""The mechanisms that it may offer."""
_PARAMETERS = {
    "rxFrameSize": "rx_frame_size",
    "txFrameSize": "tx_frame_size",
    "rxFramesPerBlock": "rx_frames_per_block",
    "txFramesPerBlock": "tx_frames_per_block",
    "numRxQueues": "num_rx_queues",
    "numTxQueues": "num_tx_queues",
}
AF_XDP = "AF_XDP"
_EXTERNAL = "/var/run/vpp/external/vpp-api.sock"


def _init(value: str) -> str:
    if value not in (AF_PACKET, AF_XDP, NO_INIT):
        raise ValueError(f"expected {AF_PACKET}, {AF_XDP} or {NO_INIT}")
    return value


def _parameters(value: str) -> dict[str, int]:
    if not value:
        return {}
    try:
        fields = dict(Field(read_yaml(Path(value).read_text()), "").items())
    except OSError as error:
        raise ValueError(f"cannot read it: {error.strerror}") from None
    if unknown := sorted(fields.keys() - _PARAMETERS.keys() - {"mode", "flags"}):
        raise ValueError(f"{', '.join(unknown)} is no parameter of AF_PACKET; expected {', '.join(_PARAMETERS)}")
    return {_PARAMETERS[key]: number(str(field.value)) for key, field in fields.items() if key in _PARAMETERS}


def _heap(value: str) -> str:
    if not re.fullmatch("[1-9][0-9]{0,5}[KMG]", value):
        raise ValueError("expected a number of bytes with a suffix, such as 256M or 1G")
    return value


@dataclass(frozen=True, kw_only=True)
class VPPConfig(KernelConfig):
    """The settings of the VPP forwarder."""

    mechanism_priority: tuple[str, ...] = variable("", mechanisms_among(OFFERED), "mechanisms to prefer, best first")
    vpp_api_socket: str = variable(
        _EXTERNAL, text, "API socket of a running VPP, used if it exists when the forwarder starts; else it starts VPP"
    )
    vpp_init: str = variable(
        AF_PACKET, _init, "how VPP gets the interface of NSM_TUNNEL_IP: AF_PACKET, or NONE if VPP has it already"
    )
    vpp_init_params: dict[str, int] = variable(
        "", _parameters, "a YAML file with parameters of that, such as rxFrameSize"
    )
    vpp_min_operation_timeout: float = variable("2s", duration, "how long each call to VPP may take")
    vpp_directory: str = variable("/run/nsm/vpp", text, "where our own VPP has its sockets and log, by this one's name")
    vpp_heap: str = variable("256M", _heap, "memory of our own VPP, besides its packet buffers")
    vpp_buffers: int = variable("32768", number, "packet buffers of our own VPP, of some 4 KiB each")
    vpp_expedite: bool = variable(
        "true", flag, "have the kernel wait less while VPP makes or deletes interfaces, by /sys/kernel/rcu_expedited"
    )
    vpp_workers: int = variable("0", number, "worker threads of our own VPP; 0: its main thread passes the packets")


def main(arguments: list[str]) -> int:
    """Builds wires through VPP."""
    return run("forwarder-vpp", VPPConfig, _serve, arguments)


async def _serve(config: VPPConfig, runtime: Runtime) -> None:
    check_capabilities()
    is_external = await asyncio.to_thread(Path(config.vpp_api_socket).exists)
    folder = Path(config.vpp_directory) / re.sub(r"[^\w.-]", "_", config.name)
    size = Size(config.vpp_heap, config.vpp_buffers, config.vpp_workers)
    process = ExternalVPP(config.vpp_api_socket) if is_external else OwnVPP(folder, size)
    init = NO_INIT if is_external else config.vpp_init
    if init == AF_XDP:
        log.warning("AF_XDP would take all packets away from the node: AF_PACKET is used")
        init = AF_PACKET
    key = NodeKey(folder / "ikev2.pem") if config.tunnel_ip is not None else None
    devices = [uplink.name for uplink in config.device_selector_file]
    uplinks = Uplinks(Names(config.name), config.tunnel_ip, devices, init=init, parameters=config.vpp_init_params)
    grace = GracePeriods(folder / "expedited" if config.vpp_expedite else None)
    session = Session(process, timeout=config.vpp_min_operation_timeout, grace=grace)
    dataplane = Dataplane(
        config.name, session, uplinks, key, in_node=config.node_namespace, claim_within=config.max_token_lifetime
    )
    counters, policy_routes = Counters(dataplane), PolicyRoutes(dataplane.kernel, config.route_tables)
    chain = forwarder(
        config.name,
        runtime.identity,
        runtime.pool,
        dataplane,
        _supported(config, dataplane, key),
        nsmgr_url=config.connect_to,
        around=[policy_routes],  # it routes by the finished interface
        watchers=[counters, Keep(Watcher(dataplane, policy_routes), config.reconcile)],
        underlay=underlay_of(config.tunnel_ip),
        hint="" if config.tunnel_ip else "NSM_TUNNEL_IP, this node's address for wires to others, is not set",
        priority=config.mechanism_priority,
        policies=config.server_policies,
        answer_policies=config.client_policies,
        trust=config.trust,
        unchecked_namespaces=config.unchecked_namespaces,
        limits=config.limits,
        orphans=config.orphans(runtime),
    )
    async with session:
        await serve_forwarder(chain, config, runtime, dataplane, counters)


def _supported(config: VPPConfig, dataplane: Dataplane, key: NodeKey | None) -> list[Supported]:
    """The mechanisms, in their order of preference; those between nodes if there is an address for them."""
    address, uplinks = config.tunnel_ip, config.device_selector_file
    tunnels = []
    if address is not None and key is not None:
        tunnels = [
            vxlan(address, dataplane, config.trust, port=config.vxlan_port),
            wireguard(address, dataplane, config.trust),
            ipsec(address, dataplane, key, config.trust),
        ]
    return [memif(), kernel(), *tunnels, *([vlan(uplinks, dataplane)] if uplinks else [])]

"""The kernel forwarder as a component."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from nsm.chains.component import Runtime, run
from nsm.chains.config import flag, items, number, variable
from nsm.chains.forwarding.counters import Counters
from nsm.chains.forwarding.vlan import Uplink, uplinks_from
from nsm.chains.model.addresses import Address
from nsm.chains.serving.forwarder import ForwarderConfig, serve_forwarder

from .capabilities import check_capabilities
from .chain import OFFERED, forwarder
from .dataplane import Dataplane
from .keep import CHANGES, REPAIR, REPORT_ONLY
from .policy_tables import FROM_1, RESERVED
from .underlay import check_tunnel_address


def _address(value: str) -> Address | None:
    try:
        return ipaddress.ip_interface(value).ip if value else None
    except ValueError:
        raise ValueError("expected an IP address of this node, such as 172.16.1.1 or fd00::1") from None


def _port(value: str) -> int:
    if not 0 <= number(value) <= 65535:
        raise ValueError("expected a UDP port from 1 to 65535, or 0")
    return number(value)


def _uplinks(value: str) -> tuple[Uplink, ...]:
    return uplinks_from(value) if value else ()


def _mechanisms(value: str) -> tuple[str, ...]:
    wanted = tuple(item.upper() for item in items(value))
    if unknown := sorted(set(wanted) - set(OFFERED)):
        raise ValueError(f"{', '.join(unknown)} is not offered by this forwarder; expected some of {','.join(OFFERED)}")
    return wanted


def _tables(value: str) -> str:
    if value not in (FROM_1, RESERVED):
        raise ValueError(f"expected {FROM_1} or {RESERVED}")
    return value


def _reconcile(value: str) -> str:
    if value not in (REPAIR, REPORT_ONLY):
        raise ValueError(f"expected {REPAIR} or {REPORT_ONLY}")
    return value


@dataclass(frozen=True, kw_only=True)
class KernelConfig(ForwarderConfig):
    """The settings of the kernel forwarder."""

    tunnel_ip: Address | None = variable(
        "", _address, "this node's address for wires to other nodes; empty: wires inside the node only"
    )
    vxlan_port: int = variable("0", _port, "UDP port of VXLAN; 0: 4789")
    device_selector_file: tuple[Uplink, ...] = variable(
        "", _uplinks, "a YAML file that maps labels to the node's interfaces for VLANs"
    )
    mechanism_priority: tuple[str, ...] = variable("", _mechanisms, "mechanisms to prefer, best first")
    route_tables: str = variable(
        FROM_1, _tables, "numbers of policy routes' tables: from-1, the first free ones, or reserved, 1314062336 and on"
    )
    reconcile: str = variable(
        REPAIR, _reconcile, "what to do about wires that others change: repair them, or only report it"
    )
    node_namespace: bool = variable("false", flag, "let wires end in the node's own network namespace")


def main(arguments: list[str]) -> int:
    """Builds wires from the kernel's interfaces."""
    return run("forwarder-kernel", KernelConfig, _serve, arguments)


async def _serve(config: KernelConfig, runtime: Runtime) -> None:
    check_capabilities()
    if config.tunnel_ip is not None:
        check_tunnel_address(config.tunnel_ip)
    dataplane = Dataplane(config.name, in_node=config.node_namespace, claim_within=config.max_token_lifetime)
    counters = Counters(dataplane)
    chain = forwarder(
        config.name,
        runtime.identity,
        runtime.pool,
        nsmgr_url=config.connect_to,
        tunnel_ip=config.tunnel_ip,
        vxlan_port=config.vxlan_port,
        uplinks=config.device_selector_file,
        priority=config.mechanism_priority,
        policies=config.server_policies,
        answer_policies=config.client_policies,
        trust=config.trust,
        dataplane=dataplane,
        observers=[counters],
        unchecked_namespaces=config.unchecked_namespaces,
        route_tables=config.route_tables,
        reconcile=config.reconcile,
        limits=config.limits,
        orphans=config.orphans(runtime),
    )
    extra = "nsm-forwarder-kernel[prometheus]"
    await serve_forwarder(chain, config, runtime, dataplane, counters, events=[CHANGES], extra=extra)

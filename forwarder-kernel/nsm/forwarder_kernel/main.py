"""The kernel forwarder as a component."""

from __future__ import annotations

import ipaddress
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from nsm.chains.component import Runtime, run
from nsm.chains.config import duration, flag, items, not_yet, number, pairs, text, url, variable
from nsm.chains.core import MeshError
from nsm.chains.elements.orphans import Orphans
from nsm.chains.metrics import PrometheusConfig
from nsm.chains.policy import ClientPolicies
from nsm.chains.serving import Provided, RegisteredConfig, serve_registered

from .capabilities import check_capabilities
from .chain import OFFERED, forwarder
from .counters import Counters
from .dataplane import Dataplane
from .keep import REPAIR, REPORT_ONLY
from .netlink import Address
from .policy_tables import FROM_1, RESERVED
from .reconcile import Reconcile
from .underlay import check_tunnel_address
from .vlan import Uplink, uplinks_from


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
class ForwarderConfig(RegisteredConfig, ClientPolicies, PrometheusConfig):
    """The settings of the forwarder."""

    name: str = variable("forwarder", text, "the name of this forwarder's path segment; unique in the mesh")
    labels: dict[str, str] = variable("p2p:true", pairs, "labels by which services select forwarders")
    nsname: str = variable("forwarder", text, "the service to register as")
    connect_to: str = variable("unix:///connect.to.socket", url, "the manager of the node")
    listen_on: str = variable("unix:///listen.on.socket", url, "where to listen")
    dial_timeout: float = variable("750ms", duration, "how long connecting to a peer may take")
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
    unregister_itself: bool = variable(
        "false", flag, "unregister when stopping: for a successor of the same name and another identity"
    )
    unchecked_namespaces: bool = variable(
        "false", flag, "accept an endpoint's network namespace even if the kernel does not show whose it is"
    )
    node_namespace: bool = variable("false", flag, "let wires end in the node's own network namespace")
    prometheus_monitor_certificate: str = not_yet("false", "following the certificate's files")
    prometheus_server_header_timeout: str = not_yet("5s", "another time limit for headers of HTTP")


def main(arguments: list[str]) -> int:
    """Builds wires from the kernel's interfaces."""
    return run("forwarder-kernel", ForwarderConfig, _serve, arguments)


async def _serve(config: ForwarderConfig, runtime: Runtime) -> None:
    check_capabilities()
    if config.tunnel_ip is not None:
        check_tunnel_address(config.tunnel_ip)
    claim_within = config.max_token_lifetime
    dataplane = Dataplane(config.name, in_node=config.node_namespace, claim_within=claim_within)
    reconcile = Reconcile(dataplane, claim_within=claim_within, orphan_lifetime=config.orphan_lifetime)
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
        orphans=Orphans(config.orphan_lifetime, runtime.identity, runtime.pool.presence, config.trust),
    )
    provided = [Provided(config.nsname, labels=config.labels)]
    async with chain, reconcile, _metrics(counters, config):
        await serve_registered(chain, config, runtime, provided)


def _metrics(counters: Counters, config: ForwarderConfig) -> AbstractAsyncContextManager[None]:
    if not config.prometheus:
        return nullcontext()
    try:
        from .prometheus import exported  # noqa: PLC0415 - only where it is asked for
    except ImportError as error:
        raise MeshError(f"PROMETHEUS=true needs the extra nsm-forwarder-kernel[prometheus]: {error}") from error
    return exported(counters, config)

"""The kernel forwarder as a component."""

from __future__ import annotations

from dataclasses import dataclass

from nsm.chains.component import Runtime, run
from nsm.chains.config import Common, flag, variable
from nsm.chains.forwarding.counters import Counters
from nsm.chains.forwarding.keep import REPAIR, REPORT_ONLY
from nsm.chains.serving.forwarder import TunnelConfig, mechanisms_among, serve_forwarder

from .capabilities import check_capabilities
from .chain import OFFERED, forwarder
from .dataplane import Dataplane
from .policy_tables import FROM_1, RESERVED
from .underlay import check_tunnel_address


def _tables(value: str) -> str:
    if value not in (FROM_1, RESERVED):
        raise ValueError(f"expected {FROM_1} or {RESERVED}")
    return value


def _reconcile(value: str) -> str:
    if value not in (REPAIR, REPORT_ONLY):
        raise ValueError(f"expected {REPAIR} or {REPORT_ONLY}")
    return value


@dataclass(frozen=True, kw_only=True)
class KernelSettings(Common):
    """What is special about the kernel's dataplane."""

    mechanism_priority: tuple[str, ...] = variable("", mechanisms_among(OFFERED), "mechanisms to prefer, best first")
    route_tables: str = variable(
        FROM_1, _tables, "numbers of policy routes' tables: from-1, the first free ones, or reserved, 1314062336 and on"
    )
    reconcile: str = variable(
        REPAIR, _reconcile, "what to do about wires that others change: repair them, or only report it"
    )
    node_namespace: bool = variable("false", flag, "let wires end in the node's own network namespace")


@dataclass(frozen=True, kw_only=True)
class KernelConfig(KernelSettings, TunnelConfig):
    """The settings of the kernel forwarder."""


def main(arguments: list[str]) -> int:
    """Builds wires from the kernel's interfaces."""
    return run("forwarder-kernel", KernelConfig, serve_kernel_forwarder, arguments)


async def serve_kernel_forwarder(config: KernelConfig, runtime: Runtime) -> None:
    """Serve the forwarder until the process is asked to stop.

    Raises `MeshError` without the capabilities, if it cannot listen, or if its manager refuses it.
    """
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
    await serve_forwarder(chain, config, runtime, dataplane, counters)

"""The process around a forwarder's chain, and the variables that every forwarder has."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from nsm.chains.component import Runtime
from nsm.chains.composed import Endpoint
from nsm.chains.config import Common, duration, flag, items, not_yet, number, pairs, text, url, variable
from nsm.chains.elements.orphans import Orphans
from nsm.chains.forwarding.counters import Counters
from nsm.chains.forwarding.dataplane import Dataplane
from nsm.chains.forwarding.reconcile import Reconcile
from nsm.chains.forwarding.traffic_figures import traffic
from nsm.chains.forwarding.vlan import Uplink, uplinks_from
from nsm.chains.metrics import also
from nsm.chains.model.addresses import Address
from nsm.chains.policy import ClientPolicies

from .config import RegisteredConfig
from .provided import Provided
from .serve import serve_registered


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


@dataclass(frozen=True, kw_only=True)
class ForwarderConfig(RegisteredConfig, ClientPolicies):
    """The variables of every forwarder; subclasses add those of their dataplane."""

    name: str = variable("forwarder", text, "the name of this forwarder's path segment; unique in the mesh")
    labels: dict[str, str] = variable("p2p:true", pairs, "labels by which services select forwarders")
    nsname: str = variable("forwarder", text, "the service to register as")
    connect_to: str = variable("unix:///connect.to.socket", url, "the manager of the node")
    listen_on: str = variable("unix:///listen.on.socket", url, "where to listen")
    dial_timeout: float = variable("750ms", duration, "how long connecting to a peer may take")
    unregister_itself: bool = variable(
        "false", flag, "unregister when stopping: for a successor of the same name and another identity"
    )
    unchecked_namespaces: bool = variable(
        "false", flag, "accept an endpoint's network namespace even if the kernel does not show whose it is"
    )
    prometheus_monitor_certificate: str = not_yet("false", "following the certificate's files")
    prometheus_server_header_timeout: str = not_yet("5s", "another time limit for headers of HTTP")

    def orphans(self, runtime: Runtime) -> Orphans:
        """For how long it keeps connections whose caller cannot be reached."""
        return Orphans(self.orphan_lifetime, runtime.identity, runtime.pool.presence, self.trust)


@dataclass(frozen=True, kw_only=True)
class TunnelSettings(Common):
    """The variables of wires to other nodes, and to networks behind their own."""

    tunnel_ip: Address | None = variable(
        "", _address, "this node's address for wires to other nodes; empty: wires inside the node only"
    )
    vxlan_port: int = variable("0", _port, "UDP port of VXLAN; 0: 4789")
    device_selector_file: tuple[Uplink, ...] = variable(
        "", _uplinks, "a YAML file that maps labels to the node's interfaces for VLANs"
    )


@dataclass(frozen=True, kw_only=True)
class TunnelConfig(TunnelSettings, ForwarderConfig):
    """The variables of forwarders that make wires to other nodes, and to networks behind their own."""


def mechanisms_among(offered: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """A parser of a list of mechanisms that are all `offered` by the forwarder; it raises ValueError."""

    def parse(value: str) -> tuple[str, ...]:
        wanted = tuple(item.upper() for item in items(value))
        if unknown := sorted(set(wanted) - set(offered)):
            told = f"{', '.join(unknown)} is not offered by this forwarder; expected some of {','.join(offered)}"
            raise ValueError(told)
        return wanted

    return parse


async def serve_forwarder(
    chain: Endpoint,
    config: ForwarderConfig,
    runtime: Runtime,
    dataplane: Dataplane[Any],
    counters: Counters,
) -> None:
    """Serve a forwarder's chain until the process is asked to stop, and remove wires of an earlier process in time.

    Its metrics have what `counters` counts, too. Raises what `serve_registered` raises.
    """
    reconcile = Reconcile(dataplane, claim_within=config.max_token_lifetime, orphan_lifetime=config.orphan_lifetime)
    with also(partial(traffic, counters)):
        async with chain, reconcile:
            await serve_registered(chain, config, runtime, [Provided(config.nsname, labels=config.labels)])

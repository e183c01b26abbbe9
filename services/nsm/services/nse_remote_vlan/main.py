"""An endpoint without a dataplane: tells clients in which VLAN, behind an uplink of their own node, a service is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nsm.apis.mechanisms import VLAN
from nsm.apis.payloads import ETHERNET
from nsm.chains.config import address_groups, text, url, variable
from nsm.chains.core import Element, MeshError
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.single_point_ipam import SinglePointIpam
from nsm.chains.elements.vlan import VlanServer
from nsm.chains.model.vlans import VlanService, parse_vlan_services
from nsm.chains.serving import Provided, ProviderConfig, run_endpoint
from nsm.chains.transport import parse_address


def _tcp(value: str) -> str:
    """A node that could reach the endpoint by a unix socket would offer it wires inside the node."""
    try:
        if not parse_address(value).is_unix:
            return value
    except MeshError:
        pass
    raise ValueError("expected a place on TCP, such as tcp://:5003")


@dataclass(frozen=True, kw_only=True)
class NseRemoteVlanConfig(ProviderConfig):
    """Which services are in which VLANs, and out of which addresses their clients get one each."""

    name: str = variable("vlan-server", text, "the endpoint's name; unique in the mesh")
    connect_to: str = variable("nsm-registry-svc:5002", url, "the registry, not a manager: every node asks directly")
    listen_on: str = variable("tcp://:5003", _tcp, "where to listen, and where the nodes' forwarders ask")
    cidr_prefix: tuple[tuple[str, ...], ...] = variable("169.254.0.0/16", address_groups, "addresses to give out")
    services: tuple[VlanService, ...] = variable(
        "", parse_vlan_services, "what to provide: name { vlan: 100; via: gw-1 }, ..; at least one; vlan 0: no tag"
    )

    def provided(self) -> Sequence[Provided]:
        """Each of the services has labels of its own."""
        return [Provided(service.name, ETHERNET, service.labels) for service in self.services]


def main(arguments: list[str]) -> int:
    """An endpoint that puts clients into VLANs behind the nodes' uplinks."""
    return run_endpoint("nse-remote-vlan", NseRemoteVlanConfig, vlan_server, arguments)


def vlan_server(config: NseRemoteVlanConfig) -> list[Element]:
    """Its chain: an address out of each group of prefixes, with the length of the prefix, and a VLAN."""
    return [
        *(SinglePointIpam(group) for group in config.cidr_prefix),
        Mechanisms({VLAN: [VlanServer(config.services)]}),
    ]

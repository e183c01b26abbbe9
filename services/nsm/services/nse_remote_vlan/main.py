"""An endpoint without a dataplane: assigns each client a VLAN behind an uplink of the client's node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nsm.apis.mechanisms import VLAN
from nsm.apis.payloads import ETHERNET
from nsm.chains.config import address_groups, text, url, variable
from nsm.chains.core import Element, MeshError
from nsm.chains.elements.former_first import FormerFirst
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.single_point_ipam import SinglePointIpam
from nsm.chains.elements.vlan import VlanServer
from nsm.chains.model.vlans import VlanService, parse_vlan_services
from nsm.chains.serving import Provided, ProviderConfig, run_endpoint
from nsm.chains.transport import parse_address


def _tcp(value: str) -> str:
    """Accept only TCP: a node that reaches the endpoint by a unix socket would offer wires within the node."""
    try:
        if not parse_address(value).is_unix:
            return value
    except MeshError:
        pass
    raise ValueError("expected a TCP address, such as tcp://:5003")


@dataclass(frozen=True, kw_only=True)
class NseRemoteVlanConfig(ProviderConfig):
    """The VLANs of services, and the prefixes for their clients' addresses."""

    name: str = variable("vlan-server", text, "the endpoint's name; unique in the mesh")
    connect_to: str = variable(
        "nsm-registry-svc:5002", url, "the registry, not a manager: every node connects directly"
    )
    listen_on: str = variable("tcp://:5003", _tcp, "where to listen; forwarders of the nodes connect here")
    cidr_prefix: tuple[tuple[str, ...], ...] = variable("169.254.0.0/16", address_groups, "addresses to assign")
    services: tuple[VlanService, ...] = variable(
        "", parse_vlan_services, "what to provide: name { vlan: 100; via: gw-1 }, ..; at least one; vlan 0: no tag"
    )

    def provided(self) -> Sequence[Provided]:
        """Each service with its labels."""
        return [Provided(service.name, ETHERNET, service.labels) for service in self.services]


def main(arguments: list[str]) -> int:
    """An endpoint that puts clients into VLANs behind the nodes' uplinks."""
    return run_endpoint("nse-remote-vlan", NseRemoteVlanConfig, vlan_server, arguments)


def vlan_server(config: NseRemoteVlanConfig) -> list[Element]:
    """Its chain: an address from each group of prefixes, with the prefix's length, and a VLAN."""
    ipams = [SinglePointIpam(group) for group in config.cidr_prefix]
    return [
        FormerFirst(ipams),  # before them: no interface here shows what an earlier process gave
        *ipams,
        Mechanisms({VLAN: [VlanServer(config.services)]}),
    ]

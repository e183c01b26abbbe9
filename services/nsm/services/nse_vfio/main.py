"""An endpoint whose own interface the mesh does not make: names its MAC, and a VLAN for each service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nsm.apis.mechanisms import NOOP
from nsm.apis.payloads import ETHERNET
from nsm.chains.config import address_groups, pairs, text, variable
from nsm.chains.core import Element
from nsm.chains.elements.ethernet import EthernetServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.model.ethernet_services import EthernetService, parse_ethernet_services
from nsm.chains.serving import Provided, ProviderConfig, run_endpoint


@dataclass(frozen=True, kw_only=True)
class NseVfioConfig(ProviderConfig):
    """The services, with MAC and VLAN, and the prefixes for their clients' addresses."""

    name: str = variable("vfio-server", text, "the endpoint's name; unique in the mesh")
    service_names: tuple[EthernetService, ...] = variable(
        "", parse_ethernet_services, "what to provide: name: { addr: 0a:55:44:33:22:11; vlan: 100 }, ..; at least one"
    )
    labels: dict[str, str] = variable("", pairs, "labels of the endpoint, such as serviceDomain:worker.domain")
    cidr_prefix: tuple[tuple[str, ...], ...] = variable("169.254.0.0/16", address_groups, "addresses to give out")

    def provided(self) -> Sequence[Provided]:
        """The services, all with the same labels."""
        return [Provided(service.name, ETHERNET, self.labels) for service in self.service_names]


def main(arguments: list[str]) -> int:
    """An endpoint that clients reach by virtual functions: it has a network interface of its own."""
    return run_endpoint("nse-vfio", NseVfioConfig, vfio_server, arguments)


def vfio_server(config: NseVfioConfig) -> list[Element]:
    """Its chain: an address pair from each group of prefixes, and no interface of the mesh."""
    return [
        *(Point2PointIpam(group) for group in config.cidr_prefix),
        Mechanisms({NOOP: [EthernetServer(config.service_names)]}),
    ]

"""An endpoint that answers pings: gives every client a wire and a pair of addresses."""

from __future__ import annotations

from dataclasses import dataclass

from nsm.apis.connectioncontext import DnsConfig
from nsm.apis.mechanisms import KERNEL, NOOP
from nsm.apis.payloads import ETHERNET
from nsm.chains.config import address_groups, items, text, variable
from nsm.chains.core import Element
from nsm.chains.elements import policy_routing
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.dns_context import DnsContextServer
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.elements.policy_routing import PolicyRouting
from nsm.chains.elements.strict_ipam import StrictIpam
from nsm.chains.model.dns import parse_dns_configs
from nsm.chains.serving import EndpointConfig, payload, run_endpoint

POLITE, STRICT = "polite", "strict"


def _ipam_policy(value: str) -> str:
    if value not in {POLITE, STRICT}:
        raise ValueError(f"expected {POLITE} or {STRICT}")
    return value


@dataclass(frozen=True, kw_only=True)
class NseConfig(EndpointConfig):
    """The settings of the endpoint."""

    name: str = variable("icmp-server", text, "the endpoint's name; unique in the mesh")
    base_dir: str = variable("./", text, "accepted for compatibility")
    service_names: tuple[str, ...] = variable("icmp-responder", items, "the services to provide")
    payload: str = variable(ETHERNET, payload, "what a wire carries: IP or ETHERNET")
    cidr_prefix: tuple[tuple[str, ...], ...] = variable("169.254.0.0/16", address_groups, "addresses to give out")
    ipam_policy: str = variable(
        "polite", _ipam_policy, "strict: a wire has only this endpoint's addresses; polite: a client keeps its others"
    )
    dns_configs: tuple[DnsConfig, ...] = variable("[]", parse_dns_configs, "DNS of clients, a JSON array")
    pbr_config_path: str = variable(policy_routing.DEFAULT_PATH, text, "a YAML list of policy routes for clients")


def main(arguments: list[str]) -> int:
    """An endpoint that answers pings."""
    return run_endpoint("nse", NseConfig, icmp_responder, arguments)


def icmp_responder(config: NseConfig) -> list[Element]:
    """Its chain: an address pair from each group of prefixes, policy routes, a kernel interface, DNS."""
    ipams = [Point2PointIpam(group) for group in config.cidr_prefix]
    return [
        *ipams,
        *([StrictIpam(ipams)] if config.ipam_policy == STRICT else []),  # behind them: it keeps their addresses
        PolicyRouting(config.pbr_config_path),  # behind the addresses: it adds some
        Mechanisms({KERNEL: [KernelServer()], NOOP: []}),
        DnsContextServer(config.dns_configs),
        ReturnDescriptors(),  # last: it sends the file that the mechanism named
    ]

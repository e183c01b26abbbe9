"""The variables of `nsm nsc` and `nsm nsc-init`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nsm.apis.mechanisms import KERNEL, MEMIF, VFIO
from nsm.chains.config import duration, flag, items, pairs, text, url, variable
from nsm.chains.elements.accept_dns import AcceptedDns
from nsm.chains.model.dns import is_server
from nsm.chains.model.networks import Networks
from nsm.chains.model.nsurl import NsUrl, check_interfaces, check_mechanisms, parse_groups, parse_strict_nsurl
from nsm.chains.model.values import read_number
from nsm.chains.policy import ClientPolicies
from nsm.services.networks import EVERYTHING, accepted

_LARGEST_PORT = 65535
_SHORTEST_CHECK = 0.01


def _wishes(value: str) -> tuple[NsUrl, ...]:
    wishes = tuple(parse_strict_nsurl(item) for item in items(value))
    check_mechanisms(wishes, (KERNEL, MEMIF, VFIO))
    check_interfaces(wishes)
    return wishes


def _address(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not is_server(host) or (number := read_number(port, _LARGEST_PORT)) is None:
        raise ValueError("expected an address and a port such as 127.0.0.1:53 or [::1]:53")
    return host, number


def _pause(value: str) -> float:
    seconds = duration(value)
    if seconds < _SHORTEST_CHECK:
        raise ValueError("expected 10ms or more: a check takes a round trip at least, and each costs a packet")
    return seconds


def _accepted_dns(value: str) -> AcceptedDns:
    return AcceptedDns.parse(items(value))


@dataclass(frozen=True, kw_only=True)
class ClientConfig(ClientPolicies):
    """The settings of every client."""

    name: str = variable("nsc", text, "the name of this client's path segment; unique in the mesh")
    connect_to: str = variable("unix:///var/lib/networkservicemesh/nsm.io.sock", url, "the manager of the node")
    dial_timeout: float = variable("5s", duration, "how long connecting to the manager may take")
    request_timeout: float = variable("15s", duration, "how long one request may take")
    labels: dict[str, str] = variable("", pairs, "labels of all connections, key:value,..; a URL's own override them")
    network_services: tuple[NsUrl, ...] = variable("", _wishes, "kernel://service/interface?label=value,..")
    network_services_file: str = variable(
        "", text, "a file of such URLs, one or several a line; it replaces the list once it can be read"
    )
    awareness_groups: tuple[tuple[NsUrl, ...], ...] = variable(
        "", parse_groups, "wires that may have the same addresses: [url,url],[url]"
    )
    accept_routes: Networks = variable(
        EVERYTHING, accepted, "prefixes that endpoints may route over wires; never those of other interfaces"
    )
    resolv_conf_path: str = variable("/etc/resolv.conf", text, "where the file of NSM_RESOLV_CONF_FROM is copied to")
    resolv_conf_from: str = variable("", text, "the file that is copied there first, if it does not exist; empty: none")
    state_folder: str = variable(
        "", text, "the folder that keeps connections, so that a restarted client continues them; empty: none"
    )


@dataclass(frozen=True, kw_only=True)
class NscConfig(ClientConfig):
    """The settings of `nsm nsc`."""

    mechanism: str = variable("kernel", text, "accepted for compatibility; the URLs name the mechanism")
    network_services_file: str = variable(
        "", text, "a file of such URLs that is watched for changes; it replaces the list once it can be read"
    )
    accept_dns: AcceptedDns = variable(
        "*",
        _accepted_dns,
        "DNS that endpoints may set: servers by prefixes, search domains and their subdomains; *: any",
    )
    local_dns_server_enabled: bool = variable("true", flag, "resolve names by the DNS servers that wires bring, if any")
    local_dns_server_address: tuple[str, int] = variable("127.0.0.1:53", _address, "address of the local DNS server")
    resolv_conf_path: str = variable("/etc/resolv.conf", text, "the file that is changed while a wire brings DNS")
    ready_file: str = variable(
        "", text, "a file that exists while the client has all its wires, and their DNS names; empty: none"
    )
    liveness_check_enabled: bool = variable("true", flag, "check by pings, and by its link, whether a wire works")
    liveness_check_interval: float = variable("200ms", _pause, "the time between two checks")
    liveness_check_timeout: float = variable("1s", _pause, "how long one check waits for answers to its four pings")
    heal_timeout: float = variable("0", duration, "how long a broken wire is requested again; 0: until it is back")

    def misfits(self) -> Iterator[str]:
        """Rejects checks that end after the request that waits for them."""
        yield from super().misfits()
        if self.liveness_check_enabled and self.liveness_check_timeout >= self.request_timeout:
            yield (
                f"a check of {self.liveness_check_timeout:g} seconds does not end within a request of "
                f"{self.request_timeout:g}: lower NSM_LIVENESS_CHECK_TIMEOUT, or raise NSM_REQUEST_TIMEOUT"
            )


@dataclass(frozen=True, kw_only=True)
class NscInitConfig(ClientConfig):
    """The settings of `nsm nsc-init`."""

    name: str = variable("cmd-nsc-init", text, "the name of this client's path segment; unique in the mesh")

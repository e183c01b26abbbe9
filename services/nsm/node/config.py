"""The variables of a host that joins a domain: those of a manager and of a forwarder, and how it joins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from nsm.chains.config import Common, items, pairs, text, url, urls, variable
from nsm.chains.policy import Admitting, IdPatterns
from nsm.chains.serving.forwarder import TunnelSettings, mechanisms_among
from nsm.chains.transport import parse_address
from nsm.forwarder_kernel.chain import OFFERED
from nsm.forwarder_kernel.main import KernelSettings
from nsm.services.identity.entries import Entries
from nsm.services.identity.joining.message import is_workload
from nsm.services.nsmgr.main import NsmgrConfig
from nsm.services.nsmgr_proxy.main import MAP_IP_FILE
from nsm.services.registry_proxy.servers import Server, dns_servers

C = TypeVar("C", bound=Common)
_ANY_NODE = "spiffe://domain/node/name"


def _entries(value: str) -> tuple[str, ...]:
    """Entries of workloads by their names below the node's. Raises ValueError."""
    found = items(value)
    entries_below(_ANY_NODE, found)
    return found


@dataclass(frozen=True, kw_only=True)
class NodeConfig(KernelSettings, TunnelSettings, Admitting, NsmgrConfig):
    """Manager, forwarder and proxy of one host, with an identity of the domain that it joins."""

    name: str = variable(
        "", text, "what the names of its manager and its forwarder end with; empty: the node's name in its join token"
    )
    join: str = variable("", text, "the trust domain to join, or to be a node of; `--join` sets it")
    join_token: str = variable("", text, "a join token; only the first start needs one")
    join_token_file: str = variable(
        "", text, "a file with the join token; without both, it is read from standard input"
    )
    state_folder: str = variable(
        "/var/lib/networkservicemesh/node", text, "where key and identity are stored; only its owner may read it"
    )
    entries: tuple[str, ...] = variable(
        "uid:0=root",
        _entries,
        "workloads of this host, which get SPIFFE_ENDPOINT_SOCKET's identities: socket:/path=NAME, uid:1000=NAME, "
        "pid:42=NAME; NAME is below the node's identity",
    )
    listen_on: tuple[str, ...] = variable(
        "unix:///var/lib/networkservicemesh/nsm.io.sock,tcp://:5001",
        urls,
        "where to listen: a unix socket for workloads of this host, and TCP for other nodes; without a host, at the "
        "address from which the domain is reached",
    )
    proxy_listen_on: str = variable(
        "tcp://:5004", url, "where its proxy listens for other domains, TCP; empty: none, the domain's registry has one"
    )
    dns_servers: tuple[Server, ...] = variable(
        "", dns_servers, "name servers that know other domains: ip or ip:port,..; empty: those of /etc/resolv.conf"
    )
    map_ip_file_path: str = variable(
        MAP_IP_FILE, text, "YAML, inside: outside: addresses of this host as other domains reach it"
    )
    attachments: str = variable(
        "/var/lib/networkservicemesh/agent",
        text,
        "the folder of this host's agent; each attachment has an identity, by its name below the node's; empty: none",
    )
    workload_api: str = variable(
        "unix:///run/spire/sockets/agent.sock",
        url,
        "where to serve the SPIFFE Workload API for workloads of this host",
        env="SPIFFE_ENDPOINT_SOCKET",
    )
    registry_url: str = variable("", url, "the registry; empty: that which the domain tells its nodes")
    intermediaries: IdPatterns = variable(
        "", IdPatterns.parse, "SPIFFE IDs that may vouch for others in a path; empty: as the domain tells its nodes"
    )
    mechanism_priority: tuple[str, ...] = variable("", mechanisms_among(OFFERED), "mechanisms to prefer, best first")
    labels: dict[str, str] = variable("p2p:true", pairs, "labels by which services select forwarders")

    @property
    def local_url(self) -> str:
        """Where workloads of this host reach its manager."""
        return next(each for each in self.listen_on if parse_address(each).is_unix)

    def misfits(self) -> Iterator[str]:
        """What keeps it from being found, or from issuing identities."""
        yield from super().misfits()
        if not self.join:
            yield "NSM_JOIN is not set: which domain should this host join? Write `nsm node --join DOMAIN`"
        if self.join_token and self.join_token_file:
            yield "NSM_JOIN_TOKEN and NSM_JOIN_TOKEN_FILE: set one of them"
        kinds = [parse_address(each).is_unix for each in self.listen_on]
        if kinds.count(True) != 1 or kinds.count(False) != 1:
            yield "NSM_LISTEN_ON: expected one unix socket, for workloads of this host, and one tcp:// address"
        if self.proxy_listen_on and parse_address(self.proxy_listen_on).is_unix:
            yield "NSM_PROXY_LISTEN_ON: expected a tcp:// address; other domains connect to it"
        if not parse_address(self.workload_api).is_unix:
            yield "SPIFFE_ENDPOINT_SOCKET: expected a unix socket, at which this host's workloads get their identities"


def entries_below(spiffe_id: str, entries: tuple[str, ...]) -> Entries:
    """The entries of workloads with full identities, below that of their node. Raises ValueError."""
    full = []
    for each in entries:
        selector, _, name = each.rpartition("=")
        if not is_workload(name):
            raise ValueError(f"{each[:200]!r}: {name[:80]!r} cannot be a workload's name; expected one such as shop")
        full.append(f"{selector}={spiffe_id}/{name}")
    return Entries.parse(full)


def part_of(config: NodeConfig, kind: type[C], **own: Any) -> C:
    """The configuration of one part of the node: what they share, and `own`."""
    shared = {each.name: getattr(config, each.name) for each in fields(kind) if hasattr(config, each.name)}
    return kind(**{**shared, **own})

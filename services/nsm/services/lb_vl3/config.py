"""The variables of `nsm lb-vl3`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nsm.chains.config import flag, pairs, text, urls, variable
from nsm.chains.model.values import read_number
from nsm.services.nsc.config import NscConfig

_LARGEST_PORT = 65535
_PROTOCOLS = ("TCP", "UDP")


def _port(value: str) -> int:
    if (number := read_number(value, _LARGEST_PORT)) is None or not number:
        raise ValueError("expected the port that connections are balanced of, 1 to 65535")
    return number


def _target(value: str) -> int:
    if (number := read_number(value, _LARGEST_PORT)) is None:
        raise ValueError("expected a port of the servers, 1 to 65535; 0: the same port")
    return number


def _protocol(value: str) -> str:
    if value.upper() not in _PROTOCOLS:
        raise ValueError(f"expected {' or '.join(_PROTOCOLS)}")
    return value.upper()


def _selector(value: str) -> dict[str, str]:
    if not (found := pairs(value)):
        raise ValueError("expected labels of the servers' connections, key:value,..")
    return found


@dataclass(frozen=True, kw_only=True)
class LbVl3Config(NscConfig):
    """The settings of `nsm lb-vl3`, besides those of a client."""

    name: str = variable("lb-vl3", text, "the name of this client's path segment; unique in the mesh")
    local_dns_server_enabled: bool = variable("false", flag, "resolve names by the DNS servers that wires bring")
    port: int = variable("", _port, "the port of its own address whose connections are balanced; required")
    target_port: int = variable("0", _target, "the port of the servers; 0: the same one")
    protocol: str = variable("TCP", _protocol, "TCP or UDP")
    selector: dict[str, str] = variable(
        "", _selector, "which clients of the vL3 are servers: those with any of these labels, key:value,..; required"
    )
    managers: tuple[str, ...] = variable(
        "", urls, "the managers that report clients; empty: those that the records of the vL3's endpoints name"
    )

    def misfits(self) -> Iterator[str]:
        """Rejects a balancer of no network, or of several."""
        yield from super().misfits()
        if len(self.network_services) != 1 or self.network_services_file:
            yield "NSM_NETWORK_SERVICES: expected one vL3, such as kernel://vl3/nsm-1, and no NSM_NETWORK_SERVICES_FILE"

"""The parameters by which the two ends of a tunnel name themselves to each other, and the bytes that it takes."""

from __future__ import annotations

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.mechanisms import MTU
from nsm.chains.core import InvalidRequest
from nsm.chains.model import networks
from nsm.chains.model.addresses import Address, read_address
from nsm.chains.model.bounds import MAX_MTU, MIN_MTU
from nsm.chains.model.ipcontext import context_of
from nsm.chains.model.values import read_number

VXLAN_OVERHEAD = {4: 54, 6: 74}
"""Bytes of outer IP, UDP, VXLAN and inner Ethernet with one VLAN tag, by IP version: upstream's numbers."""
WIREGUARD_OVERHEAD = {4: 60, 6: 80}
"""Bytes of outer IP, UDP and a WireGuard data message, by IP version."""
_LARGEST_PORT, _SHOWN = 65535, 32


def address_in(mechanism: Mechanism, parameter: str) -> Address:
    """The address in a parameter. Raises `InvalidRequest` that names it."""
    text = mechanism.parameters.get(parameter, "")
    if (address := read_address(text)) is None:
        raise InvalidRequest(f"{parameter} of the {mechanism.type} mechanism is not an IP address: {text[:_SHOWN]!r}")
    return address


def peer_in(mechanism: Mechanism, parameter: str) -> Address:
    """The address in a parameter, valid for another node: not loopback, multicast, link-local or of no host.

    Raises `InvalidRequest` that names the parameter and its fault. The underlay refuses our own addresses.
    """
    address = address_in(mechanism, parameter)
    if (fault := networks.host_fault(address)) is not None:
        raise InvalidRequest(f"{parameter} of the {mechanism.type} mechanism cannot be {address}: it is {fault}")
    return address


def number_in(mechanism: Mechanism, parameter: str, limit: int, *, least: int = 0) -> int:
    """The number in a parameter, 0 if it is not there. Raises `InvalidRequest` if it is not `least` to `limit`."""
    if not (text := mechanism.parameters.get(parameter)):
        return 0
    number, told = read_number(text, limit), f"{parameter} of the {mechanism.type} mechanism is"
    if number is None:
        raise InvalidRequest(f"{told} not a number up to {limit}: {text[:_SHOWN]!r}")
    if number < least:
        raise InvalidRequest(f"{told} {number}; expected {least} to {limit}")
    return number


def port_in(mechanism: Mechanism, parameter: str) -> int:
    """The UDP port in a parameter, 0 if it is not there. Raises `InvalidRequest`."""
    return number_in(mechanism, parameter, _LARGEST_PORT, least=1)


def lower_mtu(connection: Connection, mechanism: Mechanism, mtu: int) -> None:
    """Let neither the mechanism nor the connection promise more than `mtu`. Raises `InvalidRequest` if invalid."""
    context, told = context_of(connection), number_in(mechanism, MTU, MAX_MTU)
    if told and told < MIN_MTU:
        raise InvalidRequest(f"MTU of the {mechanism.type} mechanism is less than {MIN_MTU}")
    least = min(value for value in (told, context.mtu, mtu) if value)
    mechanism.parameters[MTU] = str(min(told or mtu, mtu))
    context.mtu = least

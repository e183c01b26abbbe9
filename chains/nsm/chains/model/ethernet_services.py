"""Network services in a network that virtual functions share: a MAC and a VLAN each, in upstream's notation."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nsm.chains.reading import instead_of

from .service_lists import parse_services
from .values import MAC
from .vlans import LARGEST_VLAN, vlan_fault

_SERVICE = re.compile(r"\s*(?P<name>[^\s{}:,;]+)\s*:?\s*\{(?P<fields>[^{}]*)\}\s*(?:,|$)")
_FIELDS = ("addr", "vlan")
_SUCH_AS = "expected one such as 'pingpong: { addr: 0a:55:44:33:22:11; vlan: 100 }'"


@dataclass(frozen=True, slots=True)
class EthernetService:
    """A network service: the MAC by which its endpoint is reached, and the VLAN of its clients' frames (0: no tag)."""

    name: str
    mac: str
    vlan: int = 0


def parse_ethernet_services(text: str) -> tuple[EthernetService, ...]:
    """Parse a list of `NAME: { addr: MAC; vlan: ID }`; without `vlan` it is untagged. Raises ValueError."""
    return parse_services(text, _SERVICE, _SUCH_AS, _service)


def _service(name: str, text: str) -> EthernetService:
    fields: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        key, colon, value = (each.strip() for each in part.partition(":"))
        if key not in _FIELDS or not colon:
            raise ValueError(f"service {name!r}: unknown field {key!r}; expected {instead_of(key, _FIELDS)}")
        if key in fields:
            raise ValueError(f"service {name!r}: {key} is given twice")
        fields[key] = value
    mac, vlan = fields.get("addr", ""), fields.get("vlan", "0")
    if not mac:
        raise ValueError(f"service {name!r}: addr is missing; it is the endpoint's hardware address")
    if not MAC.fits(mac):
        raise ValueError(f"service {name!r}: addr {MAC.fault(mac)}")
    if not re.fullmatch("[0-9]{1,4}", vlan, re.ASCII) or int(vlan) > LARGEST_VLAN:
        raise ValueError(f"service {name!r}: {vlan_fault(repr(vlan[:20]))}")
    return EthernetService(name, mac.lower(), int(vlan))

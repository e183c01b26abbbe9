"""Network services that are VLANs behind the nodes' uplinks, in upstream's notation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nsm.chains.reading import nearest

from .service_lists import parse_services

LARGEST_VLAN = 4094
"""The largest VLAN id of IEEE 802.1Q; 4095 is reserved."""

_LONGEST_NUMBER = 20
_SERVICE = re.compile(r"\s*(?P<name>[^\s{},;]+)\s*\{(?P<fields>[^{}]*)\}\s*(?:,|$)")
_FIELDS = ("vlan", "via", "labels", "domain")
_SUCH_AS = "expected one such as 'finance { vlan: 100; via: gw-1 }'"


@dataclass(frozen=True, slots=True)
class VlanService:
    """A network service: `vlan` of the uplink that a node has for the label `via`.

    Raises ValueError for an invalid id, and without a `via`.
    """

    name: str
    via: str
    vlan: int = 0
    """From 1 to 4094; 0: frames without a tag."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The endpoint's labels, which a service's matches can select."""

    def __post_init__(self) -> None:
        if not 0 <= self.vlan <= LARGEST_VLAN:
            raise ValueError(f"service {self.name!r}: {vlan_fault(self.vlan)}")
        if not self.via:
            raise ValueError(f"service {self.name!r}: via is missing; it names the uplink, as in via: gw-1")

    def __str__(self) -> str:
        """In the form that `parse_vlan_services` reads."""
        labels = "&".join(f"{key}={value}" for key, value in self.labels.items())
        return f"{self.name} {{ vlan: {self.vlan}; via: {self.via};{f' labels: {labels};' if labels else ''} }}"


def vlan_fault(vlan: object) -> str:
    """The error text for an invalid VLAN id."""
    return f"{vlan} is not a VLAN id; expected 1 to {LARGEST_VLAN}, or 0 for frames without a tag"


def parse_vlan_services(text: str) -> tuple[VlanService, ...]:
    """Parse a list of `NAME { vlan: ID; via: LABEL; labels: KEY=VALUE&KEY=VALUE }`; without `vlan` it is untagged.

    Upstream's `domain: NAME` is accepted and ignored, as it is upstream. Raises ValueError.
    """
    return parse_services(text, _SERVICE, _SUCH_AS, _service)


def _service(name: str, text: str) -> VlanService:
    fields: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        key, colon, value = (each.strip() for each in part.partition(":"))
        if key not in _FIELDS or not colon:
            near = nearest(key, _FIELDS)
            hint = f"; did you mean {near}: …?" if near else ""
            there = ", ".join(f"{each}: …" for each in _FIELDS)
            raise ValueError(f"service {name!r}: unknown field {part!r}; expected {there}{hint}")
        if key in fields:
            raise ValueError(f"service {name!r}: {key} is given twice")
        fields[key] = value
    labels = _labels(name, fields["labels"]) if fields.get("labels") else {}
    return VlanService(name, fields.get("via", ""), _vlan(name, fields.get("vlan", "0")), labels)


def _vlan(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > _LONGEST_NUMBER:
        raise ValueError(f"service {name!r}: {vlan_fault(repr(text[:_LONGEST_NUMBER]))}")
    return int(text)


def _labels(name: str, text: str) -> dict[str, str]:
    labels = {}
    for pair in text.split("&"):
        key, sign, value = (each.strip() for each in pair.partition("="))
        if not key or not sign:
            raise ValueError(f"service {name!r}: {pair!r} is not a label; expected labels: key=value&key=value")
        if key in labels:
            raise ValueError(f"service {name!r}: the label {key!r} is given twice")
        labels[key] = value
    return labels

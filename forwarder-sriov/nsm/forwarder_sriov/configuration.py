"""The configuration file: the node's network cards, and the names under which their virtual functions are requested."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from nsm.chains.reading import Field, read_yaml

_ADDRESS = re.compile(r"(?:(?P<domain>[0-9a-f]{4,8}):)?(?P<rest>[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])")
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_CAPABILITY = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_DRIVER = re.compile(r"[A-Za-z0-9_-]{1,63}")
_FIELDS = ("pfKernelDriver", "vfKernelDriver", "capabilities", "serviceDomains", "virtualFunctions")


@dataclass(frozen=True, slots=True)
class Card:
    """A physical function, the drivers of it and of its virtual functions, and the names that those are offered by."""

    address: str
    driver: str
    vf_driver: str
    names: tuple[str, ...]
    """Each `SERVICE-DOMAIN/CAPABILITY`, which is also the name of the resource in Kubernetes."""
    only: frozenset[str] = frozenset()
    """The virtual functions to use; empty: all of them."""


def cards_from(path: str) -> tuple[Card, ...]:
    """Read the file at `path`; a node of endpoints may have no cards. Raises ValueError that names the fault.

    physicalFunctions:
      0000:3b:00.0:
        pfKernelDriver: igb
        vfKernelDriver: igbvf
        capabilities: [10G]
        serviceDomains: [worker.domain]
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = read_yaml(file.read())
    except OSError as error:
        raise ValueError(f"cannot read it: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("it is not a text file") from None
    root = Field(content, "").fields({"physicalFunctions"}, "the file", is_root=True)
    if not root["physicalFunctions"]:
        raise ValueError("physicalFunctions is missing; expected the PCI addresses of network cards, or {} for none")
    cards = tuple(_card(address, value) for address, value in root["physicalFunctions"].items())
    addresses = [card.address for card in cards]
    if twice := sorted({each for each in addresses if addresses.count(each) > 1}):
        raise ValueError(f"physicalFunctions has {', '.join(twice)} twice")
    return cards


def full_address(text: str) -> str | None:
    """A PCI address with its domain: `3b:00.0` is `0000:3b:00.0`; None if it is no PCI address."""
    found = _ADDRESS.fullmatch(text)
    return f"{found['domain'] or '0000'}:{found['rest']}" if found is not None else None


def _card(address: str, value: Field) -> Card:
    if (full := full_address(address)) is None:
        raise ValueError(f"{value.path}: {address!r} is not a PCI address; expected one such as 0000:3b:00.0")
    fields = value.fields(_FIELDS, "a physical function")
    domains = _names(fields["serviceDomains"], _DOMAIN, "a DNS name, such as worker.domain")
    capabilities = _names(fields["capabilities"], _CAPABILITY, "a name, such as 10G")
    return Card(
        full,
        _one(fields["pfKernelDriver"], _DRIVER, "a kernel driver, such as igb"),
        _one(fields["vfKernelDriver"], _DRIVER, "a kernel driver, such as igbvf"),
        tuple(f"{domain}/{capability}" for domain in domains for capability in capabilities),
        frozenset(map(_function, fields["virtualFunctions"].each())),
    )


def _one(field: Field, form: re.Pattern[str], expected: str) -> str:
    if not field:
        raise ValueError(f"{field.path} is missing; expected {expected}")
    if not form.fullmatch(text := field.must_be_text()):
        raise field.fault(expected)
    return text


def _names(field: Field, form: re.Pattern[str], expected: str) -> Collection[str]:
    if not (items := field.each()):
        raise ValueError(f"{field.path} is missing or empty; expected a list, each {expected}")
    return dict.fromkeys(_one(item, form, expected) for item in items)


def _function(field: Field) -> str:
    fields = field.fields({"address", "iommuGroup"}, "a virtual function")
    if (full := full_address(fields["address"].text())) is None:
        raise fields["address"].fault("a PCI address, such as 0000:3b:10.0")
    return full

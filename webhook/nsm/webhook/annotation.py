"""Parses the annotation that requests a workload's wires, as URLs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from nsm.apis.mechanisms import KERNEL, MEMIF, VFIO
from nsm.chains.model.nsurl import NsUrl, check_interfaces, parse_strict_nsurl
from nsm.chains.reading import any_of

MECHANISMS = frozenset({KERNEL, MEMIF, VFIO})
ANY_DOMAIN = "*"
_SRIOV_TOKEN = "sriovToken"  # noqa: S105 - the name of a label
_OF_THE_POD = "eth0"
"""The name of a pod's own network interface."""


@dataclass(frozen=True)
class Served:
    """The wires that a cluster supports: the mechanisms, and the other domains of services."""

    mechanisms: Collection[str] = MECHANISMS
    domains: Collection[str] = (ANY_DOMAIN,)


EVERYTHING = Served()


@dataclass(frozen=True)
class Asked:
    """The annotation's value, unchanged, and the devices that its wires need, by the resource's name."""

    value: str
    devices: dict[str, int]


def read(value: str, served: Served = EVERYTHING) -> Asked | None:
    """The requested wires in `value`; None if it is empty. Raises ValueError with the fault and what to write."""
    if not value.strip():
        return None
    urls = [_url(item.strip(), served) for item in value.split(",") if item.strip()]
    if not urls:
        raise ValueError(f"{value!r} has no URL; expected one such as kernel://my-service/nsm-1?app=web")
    check_interfaces(urls)
    return Asked(value, dict(Counter(filter(None, map(_device, urls)))))


def _url(url: str, served: Served) -> NsUrl:
    parsed = parse_strict_nsurl(url)
    kind = parsed.mechanism.type
    if kind not in served.mechanisms:
        use = any_of(f"{each.lower()}://" for each in served.mechanisms)
        if kind in MECHANISMS:
            raise ValueError(f"{url!r}: nothing in this cluster serves {kind.lower()}:// (NSM_MECHANISMS); use {use}")
        raise ValueError(f"{url!r}: mechanism {kind.lower()} is unknown; use {use}")
    _, at, domain = parsed.network_service.partition("@")
    if at and not {domain, ANY_DOMAIN} & {*served.domains}:
        raise ValueError(f"{url!r}: services of the domain {domain!r} cannot be reached from here (NSM_DOMAINS)")
    if kind == KERNEL and parsed.interface == _OF_THE_POD:
        raise ValueError(f"{url!r}: {_OF_THE_POD} is the pod's own interface; choose another name, such as nsm-1")
    return parsed


def _device(parsed: NsUrl) -> str:
    """The resource of the SR-IOV device plugin; the first of several tokens counts."""
    return parsed.labels.get(_SRIOV_TOKEN, "").partition(",")[0]

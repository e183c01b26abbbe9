"""What an annotation asks for: the wires of one workload, as URLs."""

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
"""What the network of every pod is called in it."""


@dataclass(frozen=True)
class Served:
    """What wires a cluster can have: by which mechanisms, and to services of which other domains."""

    mechanisms: Collection[str] = MECHANISMS
    domains: Collection[str] = (ANY_DOMAIN,)


EVERYTHING = Served()


@dataclass(frozen=True)
class Asked:
    """The annotation's value as it stands, and the devices that its wires take, by the resource's name."""

    value: str
    devices: dict[str, int]


def read(value: str, served: Served = EVERYTHING) -> Asked | None:
    """What `value` asks for; None if it is empty. Raises ValueError that names what is wrong and what would do."""
    if not value.strip():
        return None
    wishes = [_wish(item.strip(), served) for item in value.split(",") if item.strip()]
    if not wishes:
        raise ValueError(f"{value!r} has no URL; expected one such as kernel://my-service/nsm-1?app=web")
    check_interfaces(wishes)
    return Asked(value, dict(Counter(filter(None, map(_device, wishes)))))


def _wish(url: str, served: Served) -> NsUrl:
    wish = parse_strict_nsurl(url)
    kind = wish.mechanism.type
    if kind not in served.mechanisms:
        use = any_of(f"{each.lower()}://" for each in served.mechanisms)
        if kind in MECHANISMS:
            raise ValueError(f"{url!r}: nothing in this cluster serves {kind.lower()}:// (NSM_MECHANISMS); use {use}")
        raise ValueError(f"{url!r}: mechanism {kind.lower()} is unknown; use {use}")
    _, at, domain = wish.network_service.partition("@")
    if at and not {domain, ANY_DOMAIN} & {*served.domains}:
        raise ValueError(f"{url!r}: services of the domain {domain!r} cannot be reached from here (NSM_DOMAINS)")
    if kind == KERNEL and wish.interface == _OF_THE_POD:
        raise ValueError(f"{url!r}: {_OF_THE_POD} is the pod's own interface; choose another name, such as nsm-1")
    return wish


def _device(wish: NsUrl) -> str:
    """The resource of the SR-IOV device plugin; of several tokens the first is meant."""
    return wish.labels.get(_SRIOV_TOKEN, "").partition(",")[0]

"""What an annotation asks for: the wires of one workload, as URLs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from nsm.apis.mechanisms import KERNEL, MEMIF, VFIO
from nsm.chains.model.nsurl import NsUrl, check_interfaces, parse_nsurl

MECHANISMS = (KERNEL, MEMIF, VFIO)
_SRIOV_TOKEN = "sriovToken"  # noqa: S105 - the name of a label


@dataclass(frozen=True)
class Asked:
    """The annotation's value as it stands, and the devices that its wires take, by the resource's name."""

    value: str
    devices: dict[str, int]


def read(value: str) -> Asked | None:
    """What `value` asks for; None if it is empty. Raises ValueError that names what is wrong and what would do."""
    if not value.strip():
        return None
    wishes = [_wish(item.strip()) for item in value.split(",") if item.strip()]
    if not wishes:
        raise ValueError(f"{value!r} has no URL; expected one such as kernel://my-service/nsm-1?app=web")
    check_interfaces(wishes)
    return Asked(value, dict(Counter(filter(None, map(_device, wishes)))))


def _wish(url: str) -> NsUrl:
    wish = parse_nsurl(url)
    if wish.mechanism.type not in MECHANISMS:
        known = [f"{mechanism.lower()}://" for mechanism in MECHANISMS]
        unknown = wish.mechanism.type.lower()
        raise ValueError(f"{url!r}: mechanism {unknown} is unknown; use {', '.join(known[:-1])} or {known[-1]}")
    return wish


def _device(wish: NsUrl) -> str:
    """The resource of the SR-IOV device plugin; of several tokens the first is meant."""
    return wish.labels.get(_SRIOV_TOKEN, "").partition(",")[0]

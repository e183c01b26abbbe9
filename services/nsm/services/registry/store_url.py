"""Where a registry keeps its records: a choice, made by a URL."""

from __future__ import annotations

import re
from dataclasses import dataclass

MEMORY, K8S = "memory", "k8s"

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class StoreUrl:
    """`memory:`, or `k8s:NAMESPACE`; the namespace may be empty."""

    scheme: str
    namespace: str = ""


def store_url(value: str) -> StoreUrl:
    """Read it. Raises ValueError with what would do."""
    scheme, colon, rest = value.partition(":")
    if not colon or scheme not in {MEMORY, K8S} or (scheme == MEMORY and rest):
        raise ValueError("expected memory:, k8s: or k8s:NAMESPACE")
    if rest and not _NAMESPACE.fullmatch(rest):
        raise ValueError(f"{rest!r} is no name of a namespace; expected lower-case letters, digits and -, at most 63")
    return StoreUrl(scheme, rest)

"""Checks a forwarder's capabilities before it starts: a container may have too few."""

from __future__ import annotations

from pathlib import Path

from nsm.chains.core import Refused

_NEEDED = {12: "CAP_NET_ADMIN, to make interfaces", 21: "CAP_SYS_ADMIN, to enter network namespaces"}
_STATUS = Path("/proc/self/status")


def check_capabilities(status: Path = _STATUS) -> None:
    """Raise `Refused` that names each missing capability."""
    effective = next(line for line in status.read_text().splitlines() if line.startswith("CapEff:"))
    mask = int(effective.partition(":")[2], 16)
    if missing := [about for bit, about in _NEEDED.items() if not mask >> bit & 1]:
        raise Refused(f"this forwarder does not have {' and '.join(missing)}; run it as root with both")

"""What a forwarder must be allowed, looked at before it begins: a container may have been given too little."""

from __future__ import annotations

from pathlib import Path

from nsm.chains.core import Refused

_NEEDED = {12: "CAP_NET_ADMIN, to make interfaces", 21: "CAP_SYS_ADMIN, to enter network namespaces"}
_STATUS = Path("/proc/self/status")


def check_capabilities(status: Path = _STATUS) -> None:
    """Raise `Refused` that names each capability which this process needs and has not."""
    effective = next(line for line in status.read_text().splitlines() if line.startswith("CapEff:"))
    mask = int(effective.partition(":")[2], 16)
    if missing := [about for bit, about in _NEEDED.items() if not mask >> bit & 1]:
        raise Refused(f"this forwarder lacks {' and '.join(missing)}; run it as root with both")

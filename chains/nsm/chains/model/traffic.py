"""What an interface counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traffic:
    """The traffic of a side since its interface was made, received and sent from its holder's view."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    drops: int
    """Packets that were dropped in either direction."""

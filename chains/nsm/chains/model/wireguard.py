"""What one WireGuard device is set to."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class WireguardSettings:
    """Key, UDP port and peer of one WireGuard device."""

    private_key: bytes = field(repr=False)
    port: int
    peer_key: bytes
    """Empty: it has no peer yet."""

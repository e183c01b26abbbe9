"""The kernel's own WireGuard: a device's settings, and its peer's last handshake (generic netlink)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from nsm.chains.model.wireguard import WireguardSettings

from .encoding import (
    DUMP,
    HEADER,
    Address,
    Message,
    attribute,
    attributes_in,
    number,
    request,
    text,
)
from .sockets import NetlinkError, Socket

_GENERIC = 16
_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_GET_DEVICE, _SET_DEVICE, _VERSION = 0, 1, 1
_INDEX, _PRIVATE_KEY, _DEVICE_FLAGS, _LISTEN_PORT, _PEERS = 1, 3, 5, 6, 8
_PUBLIC_KEY, _PEER_FLAGS, _ENDPOINT, _KEEPALIVE, _LAST_HANDSHAKE, _ALLOWED = 1, 3, 4, 5, 6, 9
_FAMILY, _ADDRESS, _LENGTH = 1, 2, 3
_REPLACE_PEERS, _NESTED = 1, 0x8000
_SHORT = struct.Struct("=H")
_TIME = struct.Struct("=qq")
_GENERIC_HEADER = struct.Struct("=BBxx")

KEEPALIVE = 10
"""Seconds between packets that keep a tunnel alive, as upstream's forwarders send them."""


class WireguardSocket(Socket):
    """Made in the namespace of its devices. Raises `NetlinkError` if this kernel has no WireGuard."""

    def __init__(self, where: str) -> None:
        super().__init__(where, _GENERIC)
        answer = self._ask(_get_family())
        if isinstance(answer, int):
            self.close()
            raise NetlinkError("find WireGuard", where, answer)
        self._family = _SHORT.unpack(attributes_in(answer, HEADER.size + _GENERIC_HEADER.size)[_FAMILY_ID])[0]

    def set(self, index: int, private_key: bytes, port: int, peer_key: bytes, peer: Address, peer_port: int) -> None:
        """Give a device its key and its only peer, which may send and receive everything."""
        self.apply([set_device(self._family, index, private_key, port, peer_key, peer, peer_port)])

    def settings(self, index: int) -> WireguardSettings | None:
        """The settings of a device; None if it has no key."""
        return decode_settings(self.dump(get_device(self._family, index)))

    def last_handshake(self, index: int) -> int:
        """The time of the peer's last handshake (Unix time, seconds); 0: none yet."""
        return max(map(decode_handshake, self.dump(get_device(self._family, index))), default=0)


def set_device(
    family: int, index: int, private_key: bytes, port: int, peer_key: bytes, peer: Address, peer_port: int
) -> Message:
    """All settings of one wire's device; other peers are removed."""
    everything = _nested(0, _allowed(socket.AF_INET)) + _nested(1, _allowed(socket.AF_INET6))
    peers = _nested(
        0,
        attribute(_PUBLIC_KEY, peer_key)
        + number(_PEER_FLAGS, 2)  # replace what may pass
        + attribute(_ENDPOINT, _endpoint(peer, peer_port))
        + attribute(_KEEPALIVE, _SHORT.pack(KEEPALIVE))
        + _nested(_ALLOWED, everything),
    )
    body = (
        _GENERIC_HEADER.pack(_SET_DEVICE, _VERSION)
        + number(_INDEX, index)
        + attribute(_PRIVATE_KEY, private_key)
        + attribute(_LISTEN_PORT, _SHORT.pack(port))
        + number(_DEVICE_FLAGS, _REPLACE_PEERS)
        + _nested(_PEERS, peers)
    )
    return request(family, 0, body, "set a WireGuard device")


def get_device(family: int, index: int) -> Message:
    """Ask for a device and its peers."""
    body = _GENERIC_HEADER.pack(_GET_DEVICE, _VERSION) + number(_INDEX, index)
    return request(family, DUMP, body, "look at a WireGuard device", ack=False)


def decode_settings(answers: Sequence[bytes]) -> WireguardSettings | None:
    """Key, port and (only) peer in the answers to `get_device`; None if the device has no key."""
    for data in answers:
        device = attributes_in(data, HEADER.size + _GENERIC_HEADER.size)
        if (key := device.get(_PRIVATE_KEY)) is not None and any(key):
            peers = list(attributes_in(device.get(_PEERS, b"")).values())
            peer = attributes_in(peers[0]).get(_PUBLIC_KEY, b"") if peers else b""
            return WireguardSettings(key, _SHORT.unpack(device[_LISTEN_PORT])[0], peer)
    return None


def decode_handshake(data: bytes) -> int:
    """The time of the (only) peer's last handshake in an answer to `get_device`, 0 if there was none."""
    device = attributes_in(data, HEADER.size + _GENERIC_HEADER.size)
    for peer in attributes_in(device.get(_PEERS, b"")).values():
        if (when := attributes_in(peer).get(_LAST_HANDSHAKE)) is not None:
            return int(_TIME.unpack(when)[0])
    return 0


def _get_family() -> Message:
    body = _GENERIC_HEADER.pack(_GET_FAMILY, 1) + text(_FAMILY_NAME, "wireguard")
    return request(_CONTROL, 0, body, "find WireGuard", ack=False)


def _allowed(family: int) -> bytes:
    size = 4 if family == socket.AF_INET else 16
    return attribute(_FAMILY, _SHORT.pack(family)) + attribute(_ADDRESS, bytes(size)) + attribute(_LENGTH, b"\0")


def _endpoint(address: Address, port: int) -> bytes:
    if address.version == 4:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + address.packed + bytes(8)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + address.packed + bytes(4)


def _nested(kind: int, value: bytes) -> bytes:
    return attribute(kind | _NESTED, value)

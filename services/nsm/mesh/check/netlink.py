"""Single netlink requests: whether the kernel can create a link, a rule or an address of some kind.

Messages are packed here, so that the check works without libraries that may be missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct

_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_NEWLINK, _NEWADDR, _NEWRULE = 16, 20, 32
_IFNAME, _LINK, _LINKINFO, _INFO_KIND, _INFO_DATA = 3, 5, 18, 1, 2
_IFA_ADDRESS, _FRA_PRIORITY, _FRA_TABLE = 1, 6, 15
_TO_TABLE = 1
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_HEADER, _ERROR = struct.Struct("=IHHII"), struct.Struct("=i")
_BUFFER = 65536


def make_link(kind: str, name: str, data: bytes = b"", parent: str = "") -> None:
    """Create a link. Raises OSError."""
    info = _attribute(_INFO_KIND, kind.encode()) + (_attribute(_INFO_DATA, data) if data else b"")
    on = _attribute(_LINK, struct.pack("=I", socket.if_nametoindex(parent))) if parent else b""
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(_IFNAME, name.encode() + b"\0")
    _ask(_NEWLINK, body + on + _attribute(_LINKINFO, info))


def add_rule(family: int, table: int) -> None:
    """Add a rule for a routing table. Raises OSError."""
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
    numbers = ((_FRA_PRIORITY, table), (_FRA_TABLE, table))
    _ask(_NEWRULE, body + b"".join(_attribute(kind, struct.pack("=I", value)) for kind, value in numbers))


def add_ipv6_address(address: str, interface: str) -> None:
    """Add an address in the same way as the forwarder, also if IPv6 is off by default. Raises OSError."""
    with contextlib.suppress(OSError), open(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6", "w") as file:
        file.write("0")
    body = struct.pack("=BBBBI", socket.AF_INET6, 128, 0, 0, socket.if_nametoindex(interface))
    _ask(_NEWADDR, body + _attribute(_IFA_ADDRESS, socket.inet_pton(socket.AF_INET6, address)))


def make_tun(name: str) -> None:
    """Create a tun interface, as WireGuard in user space does. Raises OSError."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    finally:
        os.close(descriptor)


def open_ping_socket() -> None:
    """Open a ping socket, as an unprivileged client does once the forwarder allows it. Raises OSError."""
    for groups in ("0 2147483647", "0 0"):  # a user namespace may map only group 0
        with contextlib.suppress(OSError), open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
            file.write(groups)
            break
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()


def attribute_of_number(kind: int, value: int, size: str = "I") -> bytes:
    """A numeric attribute in the data of a link."""
    return _attribute(kind, struct.pack(f"={size}", value))


def _attribute(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


def _ask(command: int, body: bytes) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as sock:
        sock.settimeout(5)
        size = _HEADER.size + len(body)
        sock.send(_HEADER.pack(size, command, _REQUEST | _ACK | _CREATE | _EXCL, 1, 0) + body)
        number = -_ERROR.unpack_from(sock.recv(_BUFFER), _HEADER.size)[0]
    if number:
        raise OSError(number, os.strerror(number))

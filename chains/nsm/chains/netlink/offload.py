"""What the kernel leaves to a link: by default, checksums, and cutting large packets into segments."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

from .namespaces import entered

_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17


def finish_checksums(namespace: int, name: str) -> None:
    """Compute checksums, and cut segments, before packets enter a link (ethtool: ``tx off``).

    A card does that on the wire, a virtual link leaves it to whoever reads the packet last. `namespace` is an open
    descriptor. Raises OSError.
    """
    value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STXCSUM, 0))
    with entered(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), ctypes.addressof(value)))

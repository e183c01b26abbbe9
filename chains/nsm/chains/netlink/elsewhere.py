"""Namespaces that are not kept open here: by a number that the kernel gives them, and which ends with them.

A descriptor, or a socket inside, keeps a namespace after all its processes have ended, and its interfaces go on
answering. A number does not (RTM_NEWNSID, Linux 4.0), and the links there can be read and removed by it
(IFLA_TARGET_NETNSID of RTM_GETLINK and RTM_DELLINK, Linux 4.16).
"""

from __future__ import annotations

import errno
import socket
import struct

from .encoding import DELLINK, DUMP, GETLINK, HEADER, Message, attribute, attributes_in, link_part, number, request

_NEWNSID, _GETNSID = 88, 90
_NETNSA_NSID, _NETNSA_FD = 1, 3
_IFLA_TARGET_NETNSID, _IFLA_EXT_MASK, _WITHOUT_STATISTICS = 46, 29, 1 << 3
_FAMILY = struct.pack("=B3x", socket.AF_UNSPEC)
_SIGNED = struct.Struct("=i")
_ANY = -1


def give_number(descriptor: int, wanted: int) -> Message:
    """Have the namespace of an open descriptor known by a number; refused with EEXIST if it has one, or another has it.

    The kernel would choose the lowest free number, which may just have been another namespace's.
    """
    body = _FAMILY + number(_NETNSA_FD, descriptor) + attribute(_NETNSA_NSID, _SIGNED.pack(wanted))
    return request(_NEWNSID, 0, body, "give a namespace a number")


def get_number(descriptor: int) -> Message:
    """Ask for the number of a namespace."""
    return request(_GETNSID, 0, _FAMILY + number(_NETNSA_FD, descriptor), "read a namespace's number", ack=False)


def number_in(answer: bytes) -> int:
    """The number in an answer; -1 if there is none."""
    found = attributes_in(answer, HEADER.size + len(_FAMILY)).get(_NETNSA_NSID)
    return _SIGNED.unpack(found)[0] if found is not None else _ANY


def get_numbers() -> Message:
    """Ask for all assigned numbers."""
    return request(_GETNSID, DUMP, _FAMILY, "list the numbers of namespaces", ack=False)


def get_links_there(namespace: int | None) -> Message:
    """Ask for all links in the namespace of that number, or in the socket's own, without their counters."""
    body = link_part(0) + number(_IFLA_EXT_MASK, _WITHOUT_STATISTICS)
    body += attribute(_IFLA_TARGET_NETNSID, _SIGNED.pack(namespace)) if namespace is not None else b""
    return request(GETLINK, DUMP, body, "list links", ack=False)


def get_link_there(index: int, namespace: int) -> Message:
    """Ask for one link in the namespace of that number."""
    body = link_part(index) + attribute(_IFLA_TARGET_NETNSID, _SIGNED.pack(namespace))
    return request(GETLINK, 0, body, f"look at {index}", ack=False)


def delete_link_there(index: int, namespace: int) -> Message:
    """Delete one link in the namespace of that number; fine if either is gone.

    The number may be another namespace's by then: `index` has to be unique, as those of wires are.
    """
    body = link_part(index) + attribute(_IFLA_TARGET_NETNSID, _SIGNED.pack(namespace))
    fine = frozenset({errno.ENODEV, errno.EINVAL, errno.ENOENT})
    return request(DELLINK, 0, body, "delete a link in another namespace", fine=fine)

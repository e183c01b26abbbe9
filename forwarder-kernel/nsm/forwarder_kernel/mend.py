"""Checks a wire in the kernel's thread, and repairs it; see `repair` for the changes that this covers."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence

from nsm.chains.forwarding.keep import Report
from nsm.chains.netlink import Namespace, Namespaces, NetlinkError

from .live_wire import LiveEnd, LiveWire
from .removal import GONE
from .repair import Repair, Wanted, look, repairs


def mend(spaces: Namespaces, live: LiveWire, *, do: bool) -> Report:
    """Check both ends of a wire; with `do` repair them. Raises `NetlinkError`."""
    report = Report()
    for number, (end, mac, settings) in enumerate(live.sides()):
        held = None if end.is_loose else end.namespace
        with spaces.in_reach(held, end.handle, end.key, end.number) as namespace:
            if namespace is None:
                is_endpoints = live.wire.kernel_ends[number].is_endpoints
                _look_from_outside(spaces, end, report, is_endpoints=is_endpoints)
                continue
            follows = live.wire.accept_ra and number == 0
            wanted = Wanted(end.index, live.alias, live.wire, settings, mac, follows)
            _mend_end(namespace, end, wanted, report, do=do)
    return report


def _look_from_outside(spaces: Namespaces, end: LiveEnd, report: Report, *, is_endpoints: bool) -> None:
    is_there = spaces.own.socket.is_there(end.index, end.number) if end.number is not None else False
    if is_there is None:
        report.lost = (*report.lost, is_endpoints)
    elif is_there:
        report.is_out_of_reach = True
    else:
        report.is_gone = True


def _mend_end(namespace: Namespace, end: LiveEnd, wanted: Wanted, report: Report, *, do: bool) -> None:
    try:
        seen = look(namespace.socket, wanted)
    except NetlinkError as error:
        if error.errno not in GONE:
            raise
        seen = None
    if seen is None:
        report.is_gone = True
        return
    if seen.link.name != end.name:
        report.renamed.append((end.name, seen.link.name))
        end.renamed = seen.link.name
    found = repairs(wanted, seen)
    report.repairs = [*report.repairs, *((end.name, repair) for repair in found)]
    if do and found:
        _do(namespace, end.name, found, follows=wanted.follows_advertisements)


def _do(namespace: Namespace, name: str, found: Sequence[Repair], *, follows: bool) -> None:
    messages = [message for repair in found for message in repair.messages]
    try:
        namespace.socket.apply(messages, ignore=GONE)
    except NetlinkError as error:
        if error.errno != errno.EACCES:
            raise
        with contextlib.suppress(NetlinkError):
            namespace.enable_ipv6(name)
        namespace.socket.apply(messages, ignore=GONE)
    if not follows:
        namespace.refuse_advertisements(name)  # a link that had lost its IPv6 has the namespace's settings again

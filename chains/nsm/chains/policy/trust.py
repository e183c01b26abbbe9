"""Whom a component believes, and what it shows to whom, beyond who is at the other end of a connection."""

from __future__ import annotations

from dataclasses import dataclass

from .patterns import NOBODY, IdPatterns


@dataclass(frozen=True, kw_only=True)
class Trust:
    """The identities that have a part in a mesh beyond their own connections. By default nobody has one."""

    intermediaries: IdPatterns = NOBODY
    """Who may vouch for others further back in a path: managers, forwarders, registries, proxies."""
    viewers: IdPatterns = NOBODY
    """Who may watch connections whose path it is not on."""

"""Names of objects for records."""

from __future__ import annotations

import hashlib
import re

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""A DNS-1123 subdomain, which Kubernetes requires as the name of an object."""
_LONGEST = 253
_DIGEST = 10
"""Hexadecimal digits that distinguish records whose names are equal once they are made valid."""


def object_name(record: str) -> str:
    """The record's name if Kubernetes allows it, as upstream does; otherwise a name derived from it.

    `Vpn_West@example` becomes `vpn-west-example-a841e4bcc0`.
    """
    if len(record) <= _LONGEST and _SUBDOMAIN.fullmatch(record):
        return record
    digest = hashlib.sha256(record.encode()).hexdigest()[:_DIGEST]
    readable = re.sub(r"[^a-z0-9]+", "-", record.lower())[: _LONGEST - _DIGEST - 1].strip("-")
    return f"{readable}-{digest}" if readable else digest

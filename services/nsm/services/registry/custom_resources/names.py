"""What the object of a record is called."""

from __future__ import annotations

import hashlib
import re

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""DNS-1123 subdomain: what Kubernetes allows as the name of an object."""
_LONGEST = 253
_DIGEST = 10
"""Hexadecimal digits that tell records apart whose names look alike once they are made valid."""


def object_name(record: str) -> str:
    """The name itself where Kubernetes allows it, as upstream does; else one made of it, always the same.

    `Vpn_West@example` becomes `vpn-west-example-a841e4bcc0`.
    """
    if len(record) <= _LONGEST and _SUBDOMAIN.fullmatch(record):
        return record
    digest = hashlib.sha256(record.encode()).hexdigest()[:_DIGEST]
    readable = re.sub(r"[^a-z0-9]+", "-", record.lower())[: _LONGEST - _DIGEST - 1].strip("-")
    return f"{readable}-{digest}" if readable else digest

"""Networks as configuration names them."""

from __future__ import annotations

from nsm.chains.config import items
from nsm.chains.model.networks import Networks

EVERYTHING = "0.0.0.0/0,::/0"


def networks(value: str) -> Networks:
    """A list of prefixes, comma separated; may be empty. Raises ValueError."""
    return Networks.parse(items(value))


def accepted(value: str) -> Networks:
    """Likewise, but not empty: a wire reaches something."""
    if not items(value):
        raise ValueError(f"expected prefixes such as 10.0.0.0/8,fd00::/8; {EVERYTHING} accepts everything")
    return networks(value)

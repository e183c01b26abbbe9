"""What a forwarder has for each mechanism that it supports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nsm.chains.core import Element


@dataclass(frozen=True, slots=True, kw_only=True)
class Supported:
    """One mechanism. `nsm.chains.composed.forwarder` puts the elements into their places."""

    kind: str
    """The mechanism's type."""
    served: Sequence[Element] | None = None
    """For the server's chain, if a client requests it: they complete the mechanism. None: clients cannot."""
    offered: Sequence[Element] = ()
    """For the client chain: they offer it to the endpoint, and use its answer."""
    again: Sequence[Element] = ()
    """For the server's chain, before all that takes part in another attempt: they repeat a request that failed."""

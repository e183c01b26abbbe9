"""Interfaces in network namespaces: `MakeWire` reads them from the mechanism, so only the offer is an element."""

from __future__ import annotations

from nsm.apis.mechanisms import KERNEL
from nsm.chains.elements.kernel import OfferKernel

from .supported import Supported


def kernel() -> Supported:
    """KERNEL for a forwarder: towards clients and endpoints of its node."""
    return Supported(kind=KERNEL, served=[], offered=[OfferKernel()])

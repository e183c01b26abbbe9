"""Interfaces in network namespaces: `MakeWire` reads them from the mechanism, so no element makes them."""

from __future__ import annotations

from nsm.apis.mechanisms import KERNEL
from nsm.chains.elements.kernel import OfferKernel

from .sriov_tokens import RefuseToken
from .supported import Supported


def kernel() -> Supported:
    """KERNEL for a forwarder: towards clients and endpoints of its node."""
    return Supported(kind=KERNEL, served=[RefuseToken()], offered=[OfferKernel()])

"""What a firewall's rules counted, as figures."""

from __future__ import annotations

from collections.abc import Iterable

from nsm.chains.core.counts import COUNTER, Family

from .firewall import Count, Firewall


async def decided(firewall: Firewall) -> list[Family]:
    """What each rule has decided until now."""
    return families(await firewall.counts())


def families(counts: Iterable[Count]) -> list[Family]:
    """Packets and bytes that each rule decided."""
    known = [*counts]
    packets = [((count.rule,), count.packets) for count in known]
    size = [((count.rule,), count.bytes) for count in known]
    return [
        Family(COUNTER, "nsm_firewall_packets", "Packets that a rule decided", ("rule",), packets),
        Family(COUNTER, "nsm_firewall_bytes", "Bytes that a rule decided", ("rule",), size),
    ]

"""The traffic of wires as figures, under upstream's names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from nsm.chains.core.counts import COUNTER, Family

from .counters import CLIENT, SERVER, Count, Counters, Labels

_LABELS = tuple(field.name for field in fields(Labels))
_WHO = {CLIENT: "client", SERVER: "endpoint"}
_FIELDS = (
    ("rx_bytes", "Bytes that came from the {}", "tx_bytes"),
    ("tx_bytes", "Bytes that went to the {}", "rx_bytes"),
    ("rx_packets", "Packets that came from the {}", "tx_packets"),
    ("tx_packets", "Packets that went to the {}", "rx_packets"),
    ("drops", "Packets that the interface of the {} dropped", "drops"),
)


async def traffic(counters: Counters) -> Iterator[Family]:
    """The traffic of every wire as it is now."""
    return families(await counters.read())


def families(counts: Sequence[Count]) -> Iterator[Family]:
    """The figures: `rx` is what the forwarder receives from that side: what its holder sent."""
    for side in (CLIENT, SERVER):
        of_side = [count for count in counts if count.side == side]
        for name, about, field in _FIELDS:
            samples = [
                (tuple(getattr(count.labels, label) for label in _LABELS), getattr(count.traffic, field))
                for count in of_side
            ]
            yield Family(COUNTER, f"{side}_{name}", about.format(_WHO[side]), _LABELS, samples)

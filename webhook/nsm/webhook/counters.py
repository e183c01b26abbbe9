"""What the webhook was asked, what it answered and how long that took."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from .kinds import kind_of

CHANGED, REFUSED, UNTOUCHED, UNDECIDED = "changed", "refused", "untouched", "undecided"
"""Results. Undecided is what the API server could not be asked about: its configuration's failurePolicy decided."""
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of durations that are counted apart, in seconds; API servers wait for 10 s."""
OTHER = "other"


class Admissions:
    """Counts reviews since the process started."""

    def __init__(self) -> None:
        self.results: Counter[tuple[str, str]] = Counter()
        """How many, by kind and result."""
        self.within = [0] * (len(BOUNDS) + 1)
        """How many took no longer than each of `BOUNDS` and longer than the one before; the last: longer than all."""
        self.seconds = 0.0
        """How long all of them took together."""

    def count(self, group: str, kind: str, result: str, seconds: float) -> None:
        """One more. Kinds that nobody registers us for are one, `OTHER`: who asks does not make figures without end."""
        known = kind_of(group, kind) is not None or (group, kind) == ("", "Namespace")
        self.results[kind if known else OTHER, result] += 1
        self.within[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

"""Counts the webhook's reviews, their results and durations."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from .kinds import kind_of

CHANGED, REFUSED, UNTOUCHED, UNDECIDED = "changed", "refused", "untouched", "undecided"
"""Results. Undecided: the API server could not be queried, and the configuration's failurePolicy decided."""
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the duration histogram, in seconds; API servers wait for 10 s."""
OTHER = "other"


class Admissions:
    """Counts reviews since the process started."""

    def __init__(self) -> None:
        self.results: Counter[tuple[str, str]] = Counter()
        """Counts by kind and result."""
        self.within = [0] * (len(BOUNDS) + 1)
        """Counts per bucket of `BOUNDS`; the last bucket is for longer ones."""
        self.seconds = 0.0
        """The total duration."""

    def count(self, group: str, kind: str, result: str, seconds: float) -> None:
        """Count a review. Kinds that are not registered count as `OTHER`, to bound the number of metrics."""
        known = kind_of(group, kind) is not None or (group, kind) == ("", "Namespace")
        self.results[kind if known else OTHER, result] += 1
        self.within[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

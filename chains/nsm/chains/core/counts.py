"""The figures that a component has of itself, for its metrics: adding is cheap, whether or not they are read.

A figure is made once, where a module begins, and is in `ALL` from then on: whatever exports metrics exports each figure
of the modules that the component has imported, and docs/metrics.md lists them. Names follow Prometheus's conventions;
exporters add ``_total`` to those of counters. The values of labels are few and known: never a peer's text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

Labels = tuple[str, ...]
"""The values of a figure's labels, in their order."""
Numbers = Iterable[Labels] | Mapping[Labels, float]
"""A number for each combination of values; or the values of each thing, which are then counted."""
T = TypeVar("T")
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


@dataclass(frozen=True, slots=True)
class Buckets:
    """Durations in seconds: how many were within each of `bounds`, and within none; and their sum."""

    bounds: Sequence[float]
    counts: Sequence[int]
    seconds: float


@dataclass(frozen=True, slots=True)
class Family:
    """A figure as it is now, for whatever exports metrics."""

    kind: str
    """`COUNTER`, `GAUGE` or `HISTOGRAM`."""
    name: str
    about: str
    labels: Labels
    """Their names."""
    samples: Sequence[tuple[Labels, float | Buckets]]
    """What each combination of the labels' values has."""


class Figure:
    """What all figures have: a name, a sentence, and the names of labels."""

    kind: ClassVar[str]

    def __init__(self, name: str, about: str, *labels: str) -> None:
        self.name, self.about, self.labels = name, about, labels
        ALL.append(self)

    def now(self) -> Family:
        """As it is now."""
        return Family(self.kind, self.name, self.about, self.labels, [*self])

    def __iter__(self) -> Iterator[tuple[Labels, float | Buckets]]:
        """What each combination of values has."""
        raise NotImplementedError


class Count(Figure):
    """How often something occurred since the process began."""

    kind = COUNTER

    def __init__(self, name: str, about: str, *labels: str) -> None:
        super().__init__(name, about, *labels)
        self._values: dict[Labels, int] = {} if labels else {(): 0}

    def add(self, *values: str, by: int = 1) -> None:
        """Add `by` to the number of these values of the labels."""
        self._values[values] = self._values.get(values, 0) + by

    def __iter__(self) -> Iterator[tuple[Labels, float]]:
        """The number of each combination of values."""
        return iter(sorted(self._values.items()))

    def __getitem__(self, values: str | Labels) -> int:
        """The number of one combination; of one value, if there is one label."""
        return self._values.get((values,) if isinstance(values, str) else values, 0)


class Level(Count):
    """How many there are of something that comes and goes, counted as it does."""

    kind = GAUGE


class Reading(Figure):
    """Numbers that are looked up when they are read, from whatever has them by then."""

    kind = GAUGE

    def __init__(self, name: str, about: str, *labels: str) -> None:
        super().__init__(name, about, *labels)
        self._sources: WeakKeyDictionary[Any, Callable[[Any], Numbers]] = WeakKeyDictionary()

    def of(self, source: T, read: Callable[[T], Numbers]) -> None:
        """Read from `source` as long as it exists; `read`, which is called with it, must not hold it."""
        self._sources[source] = read

    def __iter__(self) -> Iterator[tuple[Labels, float]]:
        """The number of each combination of values, over all sources."""
        numbers: Counter[Labels] = Counter()
        for source, read in [*self._sources.items()]:
            numbers.update(read(source))
        return iter(sorted(numbers.items()))


class Spread(Figure):
    """How often durations in seconds fell below each of some bounds (a histogram)."""

    kind = HISTOGRAM
    BOUNDS: ClassVar[tuple[float, ...]] = (
        *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    )

    def __init__(self, name: str, about: str, *labels: str) -> None:
        super().__init__(name, about, *labels)
        self._values: dict[Labels, list[float]] = {}

    def observe(self, seconds: float, *values: str) -> None:
        """Count one duration."""
        if (numbers := self._values.get(values)) is None:
            numbers = self._values[values] = [0] * (len(self.BOUNDS) + 2)
        numbers[bisect_left(self.BOUNDS, seconds)] += 1
        numbers[-1] += seconds

    def __iter__(self) -> Iterator[tuple[Labels, Buckets]]:
        """The durations of each combination of values."""
        for values, numbers in sorted(self._values.items()):
            yield values, Buckets(self.BOUNDS, [int(number) for number in numbers[:-1]], numbers[-1])

    def __getitem__(self, values: str | Labels) -> int:
        """How many durations there were with these values."""
        numbers = self._values.get((values,) if isinstance(values, str) else values)
        return int(sum(numbers[:-1])) if numbers else 0


ALL: list[Figure] = []
"""Every figure of this process, in the order in which the modules were imported."""

LIMITS = Count("nsm_limit_refusals", "Refusals because of a limit", "limit")
POLICIES = Count("nsm_policy_refusals", "Calls and answers that a policy refused", "policy")
HANDSHAKES = Count("nsm_handshakes_refused", "Peers refused before their first call", "reason")
CONNECTIONS = Level("nsm_peer_connections", "Connections of peers")
CHANNELS = Reading("nsm_channels", "Our channels to peers, by whether they are connected", "state")
RUNNING = Level("nsm_calls_running", "Calls that are being answered, watches included")
QUEUED = Level("nsm_calls_queued", "Calls that wait for their turn")
CALLS = Count(
    "nsm_calls", "Calls that were answered, by the element that failed; `peer`: one behind this component",
    "method", "code", "element",
)  # fmt: skip
CALL_SECONDS = Spread("nsm_call_duration_seconds", "Durations of calls with one answer", "method")
PEER_CALLS = Count("nsm_peer_calls", "Calls with one answer to peers", "method", "code")
PEER_CALL_SECONDS = Spread("nsm_peer_call_duration_seconds", "Durations of calls to peers, repeats included", "method")

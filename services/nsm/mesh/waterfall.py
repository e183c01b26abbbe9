"""The spans of one trace as a waterfall for a terminal."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nsm.chains.terminal import escaped

_WIDTH = 44


@dataclass(frozen=True, slots=True)
class Span:
    """One span, times in nanoseconds since the epoch."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, str] = field(default_factory=dict)


def spans_of(folder: Path) -> list[Span]:
    """The spans that components wrote into `folder`, as lines of JSON."""
    files = sorted(folder.glob("*.jsonl"))
    return [Span(**json.loads(line)) for file in files for line in file.read_text().splitlines()]


def render(spans: Sequence[Span], root: str = "") -> str:
    """The trace with most spans (or that of a span called `root`), one line per span: service, name, times, bar.

    `own` is the time of a span without its children, in ms.
    """
    if not spans:
        return "there are no spans"
    trace = _choose(spans, root)
    begin, end = min(span.start_ns for span in trace), max(span.end_ns for span in trace)
    lines = [f"{'service':<18} {'span':<40} {'ms':>7} {'own':>7}  0 ms{f'{(end - begin) / 1e6:.1f} ms':>{_WIDTH - 4}}"]
    own = _own_times(trace)
    lines += [_line(span, depth, own[span.span_id], begin, max(1, end - begin)) for span, depth in _in_order(trace)]
    return "\n".join(lines)


def _choose(spans: Sequence[Span], root: str) -> list[Span]:
    traces: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        traces[span.trace_id].append(span)
    named = [trace for trace in traces.values() if any(span.name == root for span in trace)]
    return max(named or traces.values(), key=len)


def _own_times(trace: Iterable[Span]) -> dict[str, int]:
    """Nanoseconds of each span without its children, which do not overlap: a chain does one thing at a time."""
    own = {span.span_id: span.end_ns - span.start_ns for span in trace}
    for span in trace:
        if span.parent_id in own:
            own[span.parent_id] -= span.end_ns - span.start_ns
    return {span_id: max(0, nanoseconds) for span_id, nanoseconds in own.items()}


def _in_order(trace: Iterable[Span]) -> list[tuple[Span, int]]:
    """Depth first, each with its depth: the number of components that the call passed before.

    Elements of one component nest deeply, so only the bars show their nesting. A span whose parent is missing is a
    root.
    """
    trace = sorted(trace, key=lambda span: span.start_ns)
    known = {span.span_id for span in trace}
    children: dict[str, list[Span]] = defaultdict(list)
    for span in trace:
        children[span.parent_id if span.parent_id in known else ""].append(span)
    ordered: list[tuple[Span, int]] = []
    pending = [(span, 0) for span in reversed(children[""])]
    while pending:
        span, depth = pending.pop()
        ordered.append((span, depth))
        pending += [(child, depth + (child.service != span.service)) for child in reversed(children[span.span_id])]
    return ordered


def _line(span: Span, depth: int, own: int, begin: int, length: int) -> str:
    left = (span.start_ns - begin) * _WIDTH // length
    width = max(1, (span.end_ns - span.start_ns) * _WIDTH // length)
    bar = " " * left + "█" * min(width, _WIDTH - left if left < _WIDTH else 1)
    name = f"{'  ' * depth}{span.name.rpartition('.')[2] if '/' in span.name else span.name}"
    times = f"{(span.end_ns - span.start_ns) / 1e6:>7.2f} {own / 1e6:>7.2f}"
    return f"{escaped(span.service):<18.18} {escaped(name):<40.40} {times}  {bar}"

"""All that a component can tell of itself, whoever asks for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version

from nsm.chains.core import counts
from nsm.chains.core.counts import GAUGE, Family

Read = Callable[[], Awaitable[Iterable[Family]]]
"""Returns figures as they are now. Called in the component's event loop, whenever they are asked for."""


@contextmanager
def also(read: Read) -> Iterator[None]:
    """Tell what `read` returns, too, while the context is open."""
    _READS.append(read)
    try:
        yield
    finally:
        _READS.remove(read)


async def families() -> list[Family]:
    """Every figure of this process as it is now."""
    found = [_build(), *(figure.now() for figure in counts.ALL)]
    for read in [*_READS]:
        found += await read()
    return found


@cache
def _build() -> Family:
    """What runs here, as a figure that is always 1."""
    return Family(GAUGE, "nsm_build_info", "The version that runs", ("version",), [((version("nsm-chains"),), 1)])


_READS: list[Read] = []

"""The one thread that talks to the kernel, and the namespaces that it has open: the event loop never waits for either.

Work that needs a namespace takes it here, so that each is opened once for all users, and no two threads configure
one namespace at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nsm.chains.netlink import Namespaces

T = TypeVar("T")


class KernelThread:
    """Runs work, one piece at a time. With `in_node` the node's own network namespace may be taken too.

    `when_opened` is called in the thread before any other work that needs namespaces.
    """

    def __init__(self, *, in_node: bool = False, when_opened: Callable[[Namespaces], None] | None = None) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="netlink")
        self._in_node, self._when_opened = in_node, when_opened
        self._namespaces: Namespaces | None = None
        self.is_closed = False
        """Whether all namespaces were released for good."""

    def __len__(self) -> int:
        """The number of open namespaces besides the node's own, which a leak test counts."""
        return len(self._namespaces) if self._namespaces is not None else 0

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`; it runs to its end, even if its caller is cancelled."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def in_node(self, work: Callable[[Namespaces], T]) -> T:
        """The same, for work that needs namespaces."""
        return await self.run(lambda: work(self.namespaces))

    @property
    def namespaces(self) -> Namespaces:
        """The open namespaces. To be used in the thread only."""
        if self.is_closed:
            raise RuntimeError("namespaces are used after they were closed")
        if self._namespaces is None:
            self._namespaces = Namespaces(with_own=self._in_node)
            if self._when_opened is not None:
                self._when_opened(self._namespaces)
        return self._namespaces

    async def aclose(self) -> None:
        """Release all namespaces, and stop; a second call does nothing."""
        if not self.is_closed:
            await self.run(self._close)
        self._executor.shutdown()

    def _close(self) -> None:
        self.is_closed = True
        if self._namespaces is not None:
            self._namespaces.close()
            self._namespaces = None

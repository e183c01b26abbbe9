"""The sockets on which identities are given out: they follow the entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from types import TracebackType

from nsm.chains.core import Limits, MeshError
from nsm.chains.transport import Methods, SocketAccess, serve_plain

from .guests import guarded


class Sockets:
    """Serves `methods` of each socket's path. As an async context manager it closes them all."""

    def __init__(
        self, methods: Callable[[str], Methods], *, name: str, access: SocketAccess, limits: Limits | None = None
    ) -> None:
        self._methods, self._name, self._access, self._limits = methods, name, access, limits or Limits()
        self._served: dict[str, AsyncExitStack] = {}

    def __len__(self) -> int:
        """How many are served."""
        return len(self._served)

    async def serve(self, paths: Iterable[str]) -> None:
        """Serve on these sockets and no others; those that are served already go on as they are.

        Raises `MeshError` if one of them cannot be served; all others are.
        """
        wanted = set(paths)
        for path in self._served.keys() - wanted:
            await self._served.pop(path).aclose()
        failed: MeshError | None = None
        for path in sorted(wanted - self._served.keys()):
            stack = AsyncExitStack()
            methods = self._methods(path)
            serving = serve_plain(path, methods, name=self._name, access=self._access, limits=self._limits)
            try:
                server = await stack.enter_async_context(serving)
                await stack.enter_async_context(guarded(server, self._limits))
                self._served[path] = stack
            except MeshError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def __aenter__(self) -> Sockets:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.serve(())

"""The sockets on which identities are issued, according to the entries."""

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
        """The number of sockets."""
        return len(self._served)

    async def serve(self, paths: Iterable[str]) -> None:
        """Serve on exactly these sockets; existing ones stay as they are.

        Raises `MeshError` if one of them fails; all others are served.
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

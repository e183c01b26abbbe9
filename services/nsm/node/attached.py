"""Identities of what `nsm attach` has attached on this host: one for each, at a socket in its folder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from nsm.chains.core import MeshError
from nsm.chains.logs import log
from nsm.chains.transport import Credentials
from nsm.services.agent.attachments import ISSUER, Folder, names_in
from nsm.services.identity.entries import Entries

LOOK = 0.1
"""Seconds between two looks at the agent's folder, each of which lists it."""


class Attached:
    """The entries of a node, and those of the attachments in `folder`: their identities are below `spiffe_id`."""

    def __init__(self, folder: str, spiffe_id: str, entries: Entries) -> None:
        self._folder, self._spiffe_id, self._entries = Path(folder) if folder else None, spiffe_id, entries
        self._ids: dict[str, str] = {}

    async def identify(self, socket_path: str, caller: Credentials | None) -> str:
        """The SPIFFE ID of `caller`; see `Entries`."""
        found = self._ids.get(socket_path)
        return found if found is not None else await self._entries.identify(socket_path, caller)

    @contextmanager
    def told(self) -> Iterator[None]:
        """While the context is open, `nsm attach` knows that attachments get their identities here."""
        if self._folder is None:
            yield
            return
        issuer = self._folder / ISSUER
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            issuer.write_text(f"{self._spiffe_id}\n")
        except OSError as error:
            log.warning("attachments get no identities of their own", folder=str(self._folder), reason=error.strerror)
        try:
            yield
        finally:
            with suppress(OSError):
                issuer.unlink()

    async def follow(self, serve: Callable[[Iterable[str]], Awaitable[None]]) -> None:
        """Call `serve` with the sockets of all attachments whenever these change, forever."""
        while self._folder is not None:
            found = self._found(self._folder)
            if found != self._ids:
                self._ids = dict(found)
                try:
                    await serve(self._ids)
                except MeshError as error:
                    log.warning("an attachment gets no identity", reason=str(error))
            await asyncio.sleep(LOOK)

    def _found(self, folder: Path) -> Mapping[str, str]:
        return {str(Folder(folder / name).identity): f"{self._spiffe_id}/{name}" for name in names_in(folder)}

"""A policy in a file, reloaded when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import PurePath
from typing import Any

from nsm.chains.config.watched_file import Watch
from nsm.chains.logs import log

from .engine import engine
from .source import Source, read_source


class PolicyFile:
    """The policy in a file, as of its last valid content.

    The file is checked at each call. Invalid content is logged as a warning, and the previous policy stays in force.

    """

    def __init__(self, path: str) -> None:
        """Raises ValueError that begins with the path, and the line if one is at fault."""
        self.path = path
        self.name = PurePath(path).stem
        self._watch = Watch(path)
        self._watch.has_changed()
        self._engine, self._refused = engine(), ""
        self.source = read_source(path)
        self._engine.load(self.source)

    def __repr__(self) -> str:
        return f"PolicyFile({self.path!r})"

    @classmethod
    def at(cls, path: str) -> PolicyFile:
        """The shared instance for `path`. Raises ValueError."""
        file = _file(path)
        if file._watch.has_changed():
            file._use(file._read())
        return file

    async def current(self) -> Source:
        """The policy that is in force now."""
        if self._watch.has_changed():
            try:
                self._use(await asyncio.to_thread(self._read))
            except ValueError as error:
                self._refuse(str(error))
        return self.source

    def _read(self) -> Source:
        source = read_source(self.path)
        if source.text == self.source.text:
            return self.source
        self._engine.load(source)
        return source

    def _use(self, source: Source) -> None:
        if source is not self.source:
            log.info("policy file read", path=self.path)
        self.source, self._refused = source, ""

    def _refuse(self, error: str) -> None:
        if error != self._refused:
            log.warning("policy file cannot be used; the previous policy stays in force", path=self.path, error=error)
        self._refused = error


_file = cache(PolicyFile)


async def refusal_by_files(files: Sequence[PolicyFile], document: Mapping[str, Any], whose: str) -> str | None:
    """Why the first of `files` that does not allow `document` refuses it, as ``policy: reason``, or None."""
    sources = [await file.current() for file in files]
    return await engine().refusal(sources, document, whose)

"""Outputs for the prefixes: a file, or a ConfigMap."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from nsm.chains.core import Unavailable
from nsm.chains.logs import log
from nsm.kube import CONFIG_MAPS, Api, Object, Reflector


class Output(Protocol):
    """Stores one text."""

    async def read(self) -> str:
        """The stored text; empty if there is none, or if it cannot be read."""

    async def write(self, text: str) -> None:
        """Store `text`, unless it is stored already. Raises `MeshError`."""


class File:
    """A file, replaced atomically: a reader sees the old text or the new one. By default only its owner can read it."""

    def __init__(self, path: str, mode: int = 0o600) -> None:
        self._path, self._mode = Path(path), mode

    async def read(self) -> str:
        """The file's text."""
        try:
            return self._content() or ""
        except OSError:
            return ""

    async def write(self, text: str) -> None:
        """Replace the file. Raises `Unavailable` if that fails."""
        try:
            if self._content() != text:
                self._replace(text)
                log.info("written", path=str(self._path))
        except OSError as error:
            raise Unavailable(f"cannot write {self._path}: {error.strerror}") from None

    def _content(self) -> str | None:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None

    def _replace(self, text: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(descriptor, self._mode)
                file.write(text)
            os.replace(temporary, self._path)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


class ConfigMap:
    """One entry of a ConfigMap in our namespace; an async context manager that watches it.

    `on_change` is called when it was changed: the next `write` corrects it.
    """

    def __init__(self, api: Api, name: str, key: str, *, on_change: Callable[[], None]) -> None:
        self._api, self._name, self._key = api, name, key
        self._watched = Reflector(api, CONFIG_MAPS, api.namespace, fields=f"metadata.name={name}")
        self._watched.on_change(lambda _change: on_change())

    async def read(self) -> str:
        """The entry's text, once the API server has returned it."""
        await self._watched.synced()
        return self._entry() or ""

    async def write(self, text: str) -> None:
        """Write the entry, and the ConfigMap if there is none; other entries stay as they are."""
        await self._watched.synced()
        if self._entry() == text:
            return
        found = self._found()
        data = {self._key: text}
        if found is None:
            await self._api.create(CONFIG_MAPS, {"metadata": {"name": self._name}, "data": data}, self._api.namespace)
        else:
            await self._api.patch(CONFIG_MAPS, self._name, {"data": data}, self._api.namespace)
        log.info("written", config_map=f"{self._api.namespace}/{self._name}", key=self._key)

    def _found(self) -> Object | None:
        return self._watched.objects.get((self._api.namespace, self._name))

    def _entry(self) -> str | None:
        return ((self._found() or {}).get("data") or {}).get(self._key)

    async def __aenter__(self) -> ConfigMap:
        await self._watched.__aenter__()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._watched.__aexit__(None, None, None)

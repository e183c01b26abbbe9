"""Requests over HTTP by asyncio alone: a command imports this in a few milliseconds.

Answers are read as HTTP/1.0 has them, to the end of the connection: each request has a connection of its own.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from nsm.chains.errors import Internal, InvalidRequest, Unavailable

_LONGEST_LINE = 256 * 1024 * 1024
"""Bytes: the first line of a stream's data has the whole mesh."""
_MOST_HEADERS = 100


class Answer:
    """An answer that is being read."""

    def __init__(self, status: int, reader: asyncio.StreamReader, length: int | None, quiet: float, url: str) -> None:
        self.status = status
        self._reader, self._length, self._quiet, self._url = reader, length, quiet, url

    async def text(self) -> str:
        """All of it."""
        async with _no_longer_than(self._quiet, self._url):
            body = await self._reader.read(-1) if self._length is None else await self._exactly(self._length)
        return body.decode(errors="replace")

    async def lines(self) -> AsyncIterator[str]:
        """Line by line, without their ends."""
        while True:
            async with _no_longer_than(self._quiet, self._url):
                line = await self._reader.readline()
            if not line:
                return
            yield line.decode(errors="replace").rstrip("\r\n")

    async def _exactly(self, length: int) -> bytes:
        try:
            return await self._reader.readexactly(length)
        except asyncio.IncompleteReadError:
            raise Unavailable(f"the view at {self._url} ended its answer early") from None


class Http:
    """Requests to the server at `url`. Raises `InvalidRequest` for an invalid one."""

    def __init__(self, url: str, *, token: str, tls: ssl.SSLContext | None, timeout: float) -> None:
        self._url, self._token, self._timeout = url, token, timeout
        parts = urlsplit(url)
        try:
            self._host, port = parts.hostname or "", parts.port
        except ValueError:
            raise InvalidRequest(f"{url!r} has an invalid port") from None
        if parts.scheme not in ("http", "https", "unix") or not (parts.path if parts.scheme == "unix" else self._host):
            raise InvalidRequest(f"{url!r} is not the URL of a view: expected http://host:port or unix:///path")
        self._unix = parts.path if parts.scheme == "unix" else ""
        self._port = port or (443 if parts.scheme == "https" else 80)
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._named = parts.netloc.rpartition("@")[2] if not self._unix else "localhost"

    @asynccontextmanager
    async def get(self, path: str, *, quiet: float | None = None) -> AsyncIterator[Answer]:
        """The answer to a GET; each part of it may take `quiet` seconds. Raises `Unavailable` and `Internal`."""
        writer: asyncio.StreamWriter | None = None
        try:
            async with _no_longer_than(self._timeout, self._url):
                reader, writer = await self._connected()
                writer.write(self._request(path))
                await writer.drain()
                status, length = await _head(reader)
            yield Answer(status, reader, length, self._timeout if quiet is None else quiet, self._url)
        except (OSError, asyncio.IncompleteReadError) as error:
            told = getattr(error, "strerror", None) or str(error)
            raise Unavailable(f"the view at {self._url} cannot be reached: {told}") from None
        finally:
            if writer is not None:
                writer.transport.abort()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._unix:
            return await asyncio.open_unix_connection(self._unix, limit=_LONGEST_LINE)
        return await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=_LONGEST_LINE)

    def _request(self, path: str) -> bytes:
        token = f"Authorization: Bearer {self._token}\r\n" if self._token else ""
        return f"GET {path} HTTP/1.0\r\nHost: {self._named}\r\n{token}\r\n".encode()


async def _head(reader: asyncio.StreamReader) -> tuple[int, int | None]:
    """Status and length of an answer."""
    words = (await reader.readline()).split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise Internal("what is there does not answer in HTTP; is that the URL of a view?")
    length = None
    for _ in range(_MOST_HEADERS):
        line = (await reader.readline()).strip()
        if not line:
            return int(words[1]), length
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            length = int(value)
    raise Internal("the answer has too many headers; is that the URL of a view?")


@asynccontextmanager
async def _no_longer_than(seconds: float, url: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Unavailable(f"the view at {url} did not answer within {seconds:g} s") from None

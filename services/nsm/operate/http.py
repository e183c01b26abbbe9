"""Requests to a view: HTTP over TCP or a Unix socket, with the standard library alone, which is quick to import."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from .errors import OperatorError, UsageError

_LONGEST_ANSWER = 256 << 20
"""Bytes of the longest answer that is read; a view of ten thousand wires sends some 20 MiB."""


class Http:
    """The API of one view at `url`: ``http://host:port`` or ``unix:///path``. Waits at most `timeout` seconds."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url, self._timeout = url, timeout or None

    def get(self, path: str, **query: str) -> Any:
        """The JSON that a GET of `path` answers with. Raises `OperatorError`."""
        with self._answer("GET", path, query) as answer:
            return _parsed(answer.read(_LONGEST_ANSWER))

    def post(self, path: str, body: Any) -> Any:
        """The JSON that a POST of `body` answers with. Raises `OperatorError`."""
        with self._answer("POST", path, {}, json.dumps(body).encode()) as answer:
            return _parsed(answer.read(_LONGEST_ANSWER))

    def events(self, path: str, **query: str) -> Iterator[tuple[str, Any]]:
        """The server-sent events of `path`: the kind and the JSON of each, endlessly. Raises `OperatorError`."""
        with self._answer("GET", path, query) as answer:
            if answer.fp is not None and self._timeout is not None:  # from now on silence is fine
                _socket_of(answer).settimeout(None)
            kind, data = "message", list[str]()
            while line := answer.readline(_LONGEST_ANSWER):
                text = line.decode(errors="replace").rstrip("\r\n")
                if not text and data:
                    yield kind, _parsed("\n".join(data).encode())
                    kind, data = "message", []
                field, _, value = text.partition(":")
                if field == "data":
                    data.append(value.removeprefix(" "))
                elif field == "event":
                    kind = value.strip()

    @contextmanager
    def _answer(
        self, method: str, path: str, query: dict[str, str], body: bytes | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _connection(self._url, self._timeout)
        target = quote(path) + (f"?{urlencode(query)}" if query else "")
        try:
            connection.request(method, target, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            if answer.status >= 400:
                raise _refusal(self._url, answer)
            yield answer
        except TimeoutError:
            raise OperatorError(f"the view at {self._url} does not answer within {self._timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise OperatorError(f"the view at {self._url} cannot be reached: {reason}") from None
        finally:
            connection.close()


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(url: str, timeout: float | None) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return _Unix(parts.path, timeout)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise UsageError(f"{url!r} is not the URL of a view; write http://host:port or unix:///path") from None
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(host, port, timeout=timeout)


def _socket_of(answer: http.client.HTTPResponse) -> socket.socket:
    """The socket that an answer is read from; the response has taken it from its connection."""
    found: socket.socket = answer.fp.raw._sock  # type: ignore[attr-defined]
    return found


def _refusal(url: str, answer: http.client.HTTPResponse) -> OperatorError:
    text = answer.read(4096).decode(errors="replace")
    try:
        said = json.loads(text)
        text = said.get("error", text) if isinstance(said, dict) else text
    except ValueError:
        pass
    kind = UsageError if answer.status in (400, 404, 409, 422) else OperatorError
    return kind(f"the view at {url} answered with {answer.status}: {text or answer.reason}")


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise OperatorError("the view's answer is not JSON; is that the URL of a view?") from None

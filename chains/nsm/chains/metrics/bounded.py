"""Limits on connections to ``/metrics``, so that idle clients cannot keep others out."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from threading import Lock
from typing import Any
from wsgiref.simple_server import WSGIServer

from nsm.chains.logs import log

_TIME = 5.0
"""Timeout in seconds for each read of a request, and for the handshake before it."""
_MOST, _MOST_BY_ADDRESS = 32, 8
"""Concurrent requests: each has a thread."""
_BACKLOG = 128
"""The listen backlog: Python's default of 5 fills up at once, and the kernel then drops connections."""


class _Visits:
    """The requests that are being served, by address."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_request: dict[int, str] = {}
        self._by_address: Counter[str] = Counter()

    def begin(self, request: socket.socket, address: str) -> bool:
        """Count a request; False if it exceeds the limit."""
        with self._lock:
            if len(self._by_request) >= _MOST or self._by_address[address] >= _MOST_BY_ADDRESS:
                return False
            self._by_request[id(request)] = address
            self._by_address[address] += 1
            return True

    def end(self, request: socket.socket) -> None:
        """A request was answered, or its client left."""
        with self._lock:
            address = self._by_request.pop(id(request), None)
            if address is not None:
                self._by_address[address] -= 1
                self._by_address += Counter()  # drops addresses with a count of zero


def bound(server: WSGIServer) -> None:
    """Have `server` do each TLS handshake in the request's own thread, with a timeout and a limit on threads."""
    visits, process, shut_down = _Visits(), server.process_request, server.shutdown_request
    server.socket.listen(_BACKLOG)
    if isinstance(server.socket, ssl.SSLSocket):
        # otherwise a silent client blocks the accepting thread; typeshed does not declare the attribute
        setattr(server.socket, "do_handshake_on_connect", False)  # noqa: B010

    def process_request(request: Any, client_address: Any) -> None:
        if visits.begin(request, client_address[0]):
            process(request, client_address)
        else:
            shut_down(request)

    def shutdown_request(request: Any) -> None:
        visits.end(request)
        shut_down(request)

    def handle_error(_request: Any, client_address: Any) -> None:
        log.debug("a request for metrics failed", address=str(client_address[0]))

    handler: Any = server.RequestHandlerClass
    changes = {
        "RequestHandlerClass": type("Handler", (handler,), {"timeout": _TIME}),
        "process_request": process_request,
        "shutdown_request": shutdown_request,
        "handle_error": handle_error,
    }
    for name, value in changes.items():
        setattr(server, name, value)

"""Keeps those who connect to ``/metrics`` and say nothing from keeping others out."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from threading import Lock
from typing import Any
from wsgiref.simple_server import WSGIServer

from nsm.chains.logs import log

_TIME = 5.0
"""Seconds that each read of a request, or the handshake before it, may take."""
_MOST, _MOST_BY_ADDRESS = 32, 8
"""Requests at once: each has a thread of its own."""
_BACKLOG = 128
"""Connections that wait to be accepted: the 5 that Python means are full at once, and the kernel drops others then."""


class _Visits:
    """Who is being answered."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_request: dict[int, str] = {}
        self._by_address: Counter[str] = Counter()

    def begin(self, request: socket.socket, address: str) -> bool:
        """Count one more; False if that is one too many."""
        with self._lock:
            if len(self._by_request) >= _MOST or self._by_address[address] >= _MOST_BY_ADDRESS:
                return False
            self._by_request[id(request)] = address
            self._by_address[address] += 1
            return True

    def end(self, request: socket.socket) -> None:
        """It was answered, or went away."""
        with self._lock:
            address = self._by_request.pop(id(request), None)
            if address is not None:
                self._by_address[address] -= 1
                self._by_address += Counter()  # without those that have none


def bound(server: WSGIServer) -> None:
    """Have `server` shake hands in each request's thread, in bounded time, and with few threads at once."""
    visits, process, shut_down = _Visits(), server.process_request, server.shutdown_request
    server.socket.listen(_BACKLOG)
    if isinstance(server.socket, ssl.SSLSocket):
        # else one who is silent stops the thread that accepts; typeshed lacks the attribute
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
        log.debug("somebody was not told the metrics", address=str(client_address[0]))

    handler: Any = server.RequestHandlerClass
    changes = {
        "RequestHandlerClass": type("Handler", (handler,), {"timeout": _TIME}),
        "process_request": process_request,
        "shutdown_request": shutdown_request,
        "handle_error": handle_error,
    }
    for name, value in changes.items():
        setattr(server, name, value)

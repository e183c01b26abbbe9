"""An attacker's process: connects, shows an identity or none, and says the same thing again and again."""

import contextlib
import os
import pickle
import select
import socket
import ssl
import sys
import tempfile
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Flood:
    """What to do. `pem` is a chain and its key; without it no handshake is begun."""

    port: int
    seconds: float
    pem: bytes = b""
    first: bytes = b""
    repeat: tuple[bytes, ...] = ()
    """What each connection says then, again and again: the n-th of them the n-th of these."""
    connections: int = 1
    is_read: bool = True
    path: str = ""
    """A unix socket in the place of the port."""


def _connect(flood: Flood, context: ssl.SSLContext | None) -> socket.socket:
    if flood.path:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(1)
        sock.connect(flood.path)
    else:
        sock = socket.create_connection(("127.0.0.1", flood.port), timeout=1)
    if context is not None:
        sock = context.wrap_socket(sock)
        sock.settimeout(0.05)
    else:
        sock.setblocking(False)
    sock.send(flood.first)
    return sock


def _context(pem: bytes) -> ssl.SSLContext | None:
    if not pem:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def run(flood: Flood) -> int:
    """Returns how many connections were made."""
    context, made = _context(flood.pem), 0
    socks: list[socket.socket] = []
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if len(socks) < flood.connections:
            with contextlib.suppress(OSError):
                socks.append(_connect(flood, context))
                made += 1
            until = time.monotonic() + flood.seconds if made == 1 else until
        elif not flood.repeat:
            time.sleep(0.02)
            gone = [sock for sock in _readable(socks) if _has_ended(sock)]
            socks = [sock for sock in socks if sock not in gone]
        for sock in list(socks) if flood.repeat else []:
            try:
                sock.send(flood.repeat[sock.fileno() % len(flood.repeat)])
            except (BlockingIOError, TimeoutError):
                pass
            except OSError:
                socks.remove(sock)
                sock.close()
                continue
            if flood.is_read:
                with contextlib.suppress(OSError, TimeoutError):
                    sock.settimeout(0.001)
                    sock.recv(65536)
                    sock.settimeout(0.05)
    return made


def _readable(socks: list[socket.socket]) -> list[socket.socket]:
    """Those of which something came; there may be more than `select` takes."""
    poll, by_number = select.poll(), {sock.fileno(): sock for sock in socks}
    for number in by_number:
        poll.register(number, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(0)]


def _has_ended(sock: socket.socket) -> bool:
    try:
        return not sock.recv(65536)
    except (BlockingIOError, TimeoutError):
        return False
    except OSError:
        return True


if __name__ == "__main__":
    os.nice(19)
    print(run(pickle.load(sys.stdin.buffer)))

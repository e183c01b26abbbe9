"""Passes the control messages of a memif between two workloads, whose packets go through memory that they share.

A process of its own: the memif ends with its control connection, so it must not end with the forwarder. It imports
little, and is run as a file: ``python -I relay.py MARK LISTEN CONNECT FD FD``, with the names of the
abstract sockets, and descriptors of the network namespaces that they are in. It writes a line when it is ready.
"""

import contextlib
import os
import selectors
import socket
import sys

from nsm.chains import libc

SIZE, DESCRIPTORS = 256, 8
"""A message has 128 bytes and at most one descriptor (memif protocol, version 2)."""


def main(arguments: list[str]) -> None:
    """Listen in one namespace, connect in the other, and pass messages until the end."""
    _, listen, connect, first, second = arguments
    enter(int(first))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(abstract(listen))
    listener.listen()
    enter(int(second))
    dial(connect).close()
    print("ready", flush=True)
    os.close(1)
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ, None)
    while True:
        for key, _ in ready.select():
            with contextlib.suppress(OSError):
                if key.data is None:
                    accept(ready, listener, connect)
                elif key.data[0] in ready.get_map():
                    forward(ready, *key.data)


def enter(namespace: int) -> None:
    """Use the network namespace of a descriptor from now on."""
    libc.setns(namespace, libc.CLONE_NEWNET, "enter a network namespace")
    os.close(namespace)


def abstract(name: str) -> bytes:
    """The address of an abstract socket, of a name that begins with ``@``."""
    return b"\0" + name[1:].encode()


def dial(name: str) -> socket.socket:
    """A connection to the endpoint."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(2)
    try:
        connection.connect(abstract(name))
    except OSError:
        connection.close()
        raise
    return connection


def accept(ready: selectors.BaseSelector, listener: socket.socket, connect: str) -> None:
    """A workload came: its messages go to the endpoint, and the endpoint's to it."""
    near, _ = listener.accept()
    try:
        far = dial(connect)
    except OSError:
        near.close()
        raise
    near.settimeout(2)
    ready.register(near, selectors.EVENT_READ, (near, far))
    ready.register(far, selectors.EVENT_READ, (far, near))


def forward(ready: selectors.BaseSelector, source: socket.socket, target: socket.socket) -> None:
    """Pass one message on; if one side has ended, so does the other."""
    descriptors: list[int] = []
    try:
        data, descriptors, _, _ = socket.recv_fds(source, SIZE, DESCRIPTORS)
        if data:
            socket.send_fds(target, [data], descriptors)
            return
    except OSError:
        pass
    finally:
        for each in descriptors:
            os.close(each)
    for each_socket in (source, target):
        ready.unregister(each_socket)
        each_socket.close()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        print(error.strerror or error, flush=True)
        sys.exit(1)

"""Pings the opposite end of every wire of some namespaces, and reports what came back.

`python pinger.py RATE SLOT [NAME=NAMESPACE ...]` needs nothing but Python. Without names it is about the namespace that it
runs in. Each line of its output is the fate of the packets of one wire in one slot of SLOT seconds, as JSON: `at`
(CLOCK_MONOTONIC, seconds), `name`, `wire` (interface), `to`, `sent`, `lost`. A packet is lost when no answer has come
half a second later.
"""

import ctypes
import json
import os
import select
import socket
import struct
import sys
import time

PATIENCE, LOOK = 0.5, 0.1
HOST = "FFFFFFFF"
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One namespace, with a socket in it; `path` None: that of this process."""

    def __init__(self, name, path):
        self.name, self.wires = name, {}
        self._descriptor = os.open(path, os.O_RDONLY) if path else None
        self._enter()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)

    def look(self):
        """Learn the opposite ends, by the host routes of the main table; a wire that is away is pinged where it was."""
        self._enter()
        with open("/proc/thread-self/net/route") as file:
            for line in file.readlines()[1:]:
                name, destination, gateway, _, _, _, _, mask = line.split()[:8]
                if name.startswith("nsm") and mask == HOST and gateway == "00000000":
                    self.wires[name] = socket.inet_ntoa(struct.pack("<I", int(destination, 16)))

    def _enter(self):
        if self._descriptor is not None and LIBC.setns(self._descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


class Pinger:
    """All of them; one identifier and one count of sequence numbers."""

    def __init__(self, namespaces, rate, slot):
        self._namespaces, self._rate, self._slot = namespaces, rate, slot
        self._identifier, self._sequence = os.getpid() & 0xFFFF, 0
        self._waiting, self._slots = {}, {}
        self._poll = select.poll()
        self._by_descriptor = {}
        for namespace in namespaces:
            self._poll.register(namespace.socket, select.POLLIN)
            self._by_descriptor[namespace.socket.fileno()] = namespace

    def run(self):
        """Ping until the reader of the output has gone."""
        next_look = next_round = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= next_look:
                for namespace in self._namespaces:
                    namespace.look()
                next_look = now + min(LOOK, self._slot)
            if now >= next_round:
                self._wait(0.0)  # answers that are there count, also if this process had no processor for long
                next_round = max(next_round + 1 / self._rate, now)
                for namespace in self._namespaces:
                    for wire, target in namespace.wires.items():
                        self._send(namespace, wire, target)
                self._report(now)
            self._wait(max(0.0, min(next_look, next_round) - time.monotonic()))

    def _wait(self, seconds):
        for descriptor, _ in self._poll.poll(seconds * 1000):
            self._receive(self._by_descriptor[descriptor])

    def _send(self, namespace, wire, target):
        now = time.monotonic()
        self._sequence = self._sequence + 1 & 0xFFFF
        slot = self._slots.setdefault((int(now / self._slot), namespace.name, wire, target), [0, 0])
        slot[0] += 1
        try:
            namespace.socket.sendto(echo(self._identifier, self._sequence), (target, 0))
        except OSError:
            return  # counts as lost
        self._waiting[self._sequence] = now, slot

    def _receive(self, namespace):
        while True:
            try:
                packet = namespace.socket.recv(256)
            except BlockingIOError:
                return
            except OSError:
                continue  # an error that came back for an earlier packet
            kind, _, _, whose, sequence = struct.unpack("!BBHHH", packet[20:28])
            if (kind, whose) == (0, self._identifier) and (entry := self._waiting.pop(sequence, None)) is not None:
                entry[1][1] += 1

    def _report(self, now):
        while self._waiting:
            sequence, (sent, _) = next(iter(self._waiting.items()))
            if now - sent <= 2 * PATIENCE:
                break
            del self._waiting[sequence]
        lines = []
        while self._slots:
            key = next(iter(self._slots))
            if now - key[0] * self._slot <= PATIENCE + self._slot:
                break
            sent, answered = self._slots.pop(key)
            number, name, wire, target = key
            lines.append(
                json.dumps(
                    {
                        "at": number * self._slot,
                        "name": name,
                        "wire": wire,
                        "to": target,
                        "sent": sent,
                        "lost": sent - answered,
                    }
                )
            )
        if lines:
            print("\n".join(lines), flush=True)


def checksum(data):
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo(identifier, sequence):
    """An ICMP echo request."""
    data = struct.pack("!BBHHH8s", 8, 0, 0, identifier, sequence, b"chaos...")
    return data[:2] + struct.pack("!H", checksum(data)) + data[4:]


if __name__ == "__main__":
    places = [word.split("=", 1) for word in sys.argv[3:]] or [("", None)]
    try:
        Pinger([Namespace(name, path) for name, path in places], float(sys.argv[1]), float(sys.argv[2])).run()
    except BrokenPipeError:
        os._exit(0)

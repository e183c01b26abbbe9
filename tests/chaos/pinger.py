"""Pings the opposite end of every wire of the namespace that it runs in, and reports what came back.

Needs nothing but Python: `python pinger.py RATE`. Each line of its output is the fate of the packets of one wire in one
tenth of a second, as JSON: `at` (CLOCK_MONOTONIC, seconds), `wire` (interface), `to`, `sent`, `lost`. A packet is lost
when no answer has come half a second later.
"""

import json
import os
import select
import socket
import struct
import sys
import time

PATIENCE, SLOT = 0.5, 0.1
HOST = "FFFFFFFF"


def targets():
    """The opposite ends by interface: the host routes of the main table."""
    found = {}
    with open("/proc/net/route") as file:
        for line in file.readlines()[1:]:
            name, destination, gateway, _, _, _, _, mask = line.split()[:8]
            if name.startswith("nsm") and mask == HOST and gateway == "00000000":
                found.setdefault(name, socket.inet_ntoa(struct.pack("<I", int(destination, 16))))
    return found


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo(identifier, sequence):
    data = struct.pack("!BBHHH8s", 8, 0, 0, identifier, sequence, b"chaos...")
    return data[:2] + struct.pack("!H", checksum(data)) + data[4:]


def main(rate):
    """Ping until the reader of the output has gone."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
    identifier, sequence = os.getpid() & 0xFFFF, 0
    wires, waiting, slots = {}, {}, {}
    next_look = next_round = time.monotonic()
    while True:
        now = time.monotonic()
        if now >= next_look:
            wires.update(targets())  # a wire that is away is pinged where it was
            next_look = now + SLOT
        if now >= next_round:
            next_round = max(next_round + 1 / rate, now)
            for wire, target in wires.items():
                sequence = sequence + 1 & 0xFFFF
                key = (round(now - now % SLOT, 1), wire, target)
                slot = slots.setdefault(key, [0, 0])
                slot[0] += 1
                try:
                    sock.sendto(echo(identifier, sequence), (target, 0))
                except OSError:
                    continue  # counts as lost
                waiting[sequence, target] = now, slot
        select.select([sock], [], [], max(0.0, min(next_look, next_round) - time.monotonic()))
        receive(sock, identifier, waiting)
        report(slots, waiting, time.monotonic())


def receive(sock, identifier, waiting):
    while True:
        try:
            packet, sender = sock.recvfrom(256)
        except BlockingIOError:
            return
        except OSError:
            continue  # an error that came back for an earlier packet
        kind, _, _, whose, sequence = struct.unpack("!BBHHH", packet[20:28])
        if (kind, whose) == (0, identifier):
            entry = waiting.pop((sequence, sender[0]), None)
            if entry is not None:
                entry[1][1] += 1


def report(slots, waiting, now):
    for key in [key for key, (sent, _) in waiting.items() if now - sent > 2 * PATIENCE]:
        del waiting[key]
    for key in [key for key in slots if now - key[0] > PATIENCE + SLOT]:
        at, wire, target = key
        sent, answered = slots.pop(key)
        print(json.dumps({"at": at, "wire": wire, "to": target, "sent": sent, "lost": sent - answered}), flush=True)


if __name__ == "__main__":
    try:
        main(float(sys.argv[1]))
    except BrokenPipeError:
        os._exit(0)

"""Waiting for many descriptors."""

import fcntl
import os
import resource
import socket

from nsm.services.agent.waiting import readable


def test_descriptors_above_1023_can_be_waited_for():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2048), before[1]))
    ours, theirs = socket.socketpair()
    try:
        with ours, theirs:
            high = fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD_CLOEXEC, 1500)
            try:
                assert readable([high], 0) == []
                theirs.send(b"x")
                assert readable([high, ours], None) == [high, ours] or readable([high, ours], None) == [ours, high]
                theirs.close()
                ours.recv(1)
                assert readable([high], 0) == [high]  # its end is something to read
            finally:
                os.close(high)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

"""Runs tests inside the virtual machine as the host asks for them, each in a process and a network of its own.

A test's module is imported here, before the fork, so that only its first test waits for that.
"""

import asyncio
import contextlib
import faulthandler
import importlib
import inspect
import json
import os
import signal
import sys
import tempfile
import time
import traceback
import tty

from nsm.mesh import namespaces

PORT = "/dev/ttyS1"


def main():
    with open(PORT, "r+b", buffering=0) as port:
        tty.setraw(port)
        answer(port, kernel=os.uname().release)
        while line := port.readline():
            begin = time.monotonic()
            passed, output = run(**json.loads(line))
            answer(port, passed=passed, output=output, seconds=time.monotonic() - begin)


def answer(port, **fields):
    port.write(json.dumps(fields).encode() + b"\n")


def run(module, function, seconds):
    """Whether a test passed within its time, and what it and its error wrote."""
    print(f"agent: {module}.{function}", flush=True)
    with tempfile.TemporaryFile() as output:
        try:
            test = getattr(importlib.import_module(module), function)
        except Exception:
            return False, traceback.format_exc()
        pid = os.fork()
        if pid == 0:
            os._exit(child(test, seconds, output.fileno()))
        _, status = os.waitpid(pid, 0)
        end_all()
        output.seek(0)
        return status == 0, output.read().decode(errors="replace")


def child(test, seconds, output):
    namespaces.enter(namespaces.new_network(), namespaces.NEW_NET)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.dump_traceback_later(seconds, exit=True)  # says where it stood
    try:
        result = test()
        if inspect.iscoroutine(result):
            asyncio.run(result)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def end_all():
    """End what a test left running: beside this process and the first one nobody else lives here."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


if __name__ == "__main__":
    main()

"""The client side of the process that evaluates Rego."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .source import Source

_WORKER = Path(__file__).with_name("worker.py")
_START_SECONDS = 20.0
_MOST_ANSWERED = 1 << 16
_FAILED = "the engine failed on it: endless recursion, or too much memory"


class Unanswered(Exception):
    """A request got no response, and the process is gone; the text says why."""


class Process:
    """Sends requests to a separate process, one at a time, each with a time limit. Blocks: call it from a thread pool.

    The library that evaluates Rego cannot be interrupted, and a policy may crash it. So it runs in a process that can
    be killed, and that shares no memory, descriptors or environment with this one.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self.knows: dict[str, Source] = {}
        """Loaded policies by name; cleared when the process ends."""

    def ask(self, question: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The response. Raises `Unanswered` if there is none in time, or if the process ends."""
        try:
            if self._socket is None:
                self._read(self._start(), _START_SECONDS, "the engine did not start")
            assert self._socket is not None
            self._socket.settimeout(seconds)
            self._socket.sendall(json.dumps(question).encode() + b"\n")
            return self._read(self._socket, seconds, f"no decision within {seconds:g} s")
        except OSError:
            self.end()
            raise Unanswered(_FAILED) from None
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Kill it."""
        self.knows.clear()
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._socket = None

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-IB", str(_WORKER)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"RUST_BACKTRACE": "0", "RUST_LIB_BACKTRACE": "0"},  # backtraces take half a second
            )
        self._socket = ours
        return ours

    def _read(self, answers: socket.socket, seconds: float, why: str) -> dict[str, Any]:
        until, line = time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or len(line) > _MOST_ANSWERED:
                raise Unanswered(why)
            answers.settimeout(left)
            try:
                part = answers.recv(_MOST_ANSWERED)
            except TimeoutError:
                raise Unanswered(why) from None
            if not part:
                raise OSError("it has ended")
            line += part
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

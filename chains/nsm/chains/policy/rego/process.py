"""The process that evaluates Rego, as the one that asks it sees it."""

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
_FAILED = "the engine failed on it: it recurs without end, or needs too much memory"


class Unanswered(Exception):
    """A question got no answer: the text says why. The process is gone, the next question starts another one."""


class Process:
    """Asks a process of its own, one question at a time, each with a time limit. Blocks: for a thread of a pool.

    Rego is evaluated by a library that nothing can interrupt and that a policy may bring down. So it runs where it can
    be ended, with no part in this process's memory, descriptors or environment.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self.knows: dict[str, Source] = {}
        """What was loaded, by name: forgotten with the process."""

    def ask(self, question: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The answer. Raises `Unanswered` if there is none in time, or the process ends over it."""
        try:
            if self._socket is None:
                self._read(self._start(), _START_SECONDS, "the engine did not start")
            assert self._socket is not None
            self._socket.settimeout(seconds)
            self._socket.sendall(json.dumps(question).encode() + b"\n")
            return self._read(self._socket, seconds, f"it was not decided within {seconds:g} s")
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
                env={"RUST_BACKTRACE": "0", "RUST_LIB_BACKTRACE": "0"},  # they take half a second and nobody reads them
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

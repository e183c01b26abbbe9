"""What is fuzzed: a function of bytes that fails only if a promise is broken, with what it is fed first."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
SECONDS, SECONDS_PER_BYTE = 0.5, 20e-6
"""What one input may take, of the processor: far more than it should, so that only what is stuck fails."""


@dataclass(frozen=True)
class Target:
    """`run` raises AssertionError, or whatever else is not the documented error, if a promise is broken.

    `words` are what inputs are likely made of. `repeated` are inputs whose middle part may come any number of times:
    time has to be linear in it.
    """

    name: str
    run: Callable[[bytes], None]
    words: tuple[bytes, ...] = ()
    repeated: tuple[tuple[bytes, bytes, bytes], ...] = ()
    largest: int = 65536
    """Bytes that the repeated ones have; less for what is slow, but read by nobody but its own user."""

    def __call__(self, data):
        begin = time.process_time()
        self.run(data)
        taken = time.process_time() - begin
        assert taken <= SECONDS + SECONDS_PER_BYTE * len(data), f"{len(data)} bytes took {taken:.1f} s"

    @property
    def folder(self):
        return CORPUS / self.name

    def seeds(self):
        """The corpus, by name: what it was like at first, and what once failed."""
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())} if self.folder.is_dir() else {}


def of_text(read):
    """For what reads text: any bytes as text, in which what is not UTF-8 is replaced."""

    @functools.wraps(read)
    def run(data):
        read(data.decode("utf-8", "replace"))

    return run


def raises(error, *others):
    """A function that may raise these, and nothing else; gives None then. An error is one short line."""

    def decorate(read):
        @functools.wraps(read)
        def run(data):
            try:
                return read(data)
            except (error, *others):
                return None

        return run

    return decorate

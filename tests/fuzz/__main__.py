"""``python -m tests.fuzz --minutes 30 [TARGET ..]``: each target for its part of the time, in a process of its own.

With atheris (`pip install -r locks/fuzz.txt`) inputs are found by the code that they reach; without it they are
the corpus, mutated blindly. An input that breaks a promise is put into the corpus and named at the end: once mended it
stays there, and `make test` tries it every time.
"""

import argparse
import hashlib
import importlib.util
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .target import Target

MEMORY_MIB = 1024
"""What the process of a target may have: a decoder of a few KB that needs more has been made to."""
LARGEST = 4096
"""Bytes of an input."""


def main():
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--alone", action="store_true", help="run the one target named in this process")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parsed = parser.parse_args()
    if parsed.alone:
        return alone(parsed.targets[0], parsed.minutes * 60)
    names = parsed.targets or _names()
    print(
        f"{len(names)} targets, {60 * parsed.minutes / len(names):.0f} s each, {'with atheris' if _has_atheris() else 'blindly'}"
    )
    failed = [name for name in names if not _passes(name, parsed.minutes / len(names))]
    print(f"failed: {', '.join(failed)}" if failed else "no promise was broken")
    return 1 if failed else 0


def _names():
    """Asked of a process of its own: what is imported here is not instrumented there."""
    words = [sys.executable, "-c", "from tests.fuzz.all_targets import TARGETS; print(*TARGETS)"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


def _has_atheris():
    return importlib.util.find_spec("atheris") is not None


def _passes(name, minutes):
    words = [sys.executable, "-m", "tests.fuzz", "--alone", "--minutes", str(minutes), name]
    with tempfile.TemporaryFile() as said:
        code = subprocess.run(words, stdout=said, stderr=subprocess.STDOUT, check=False).returncode
        said.seek(0)
        text = said.read().decode(errors="replace")
    last = [line for line in text.splitlines() if "DONE" in line or " inputs" in line][-1:]
    print(f"{name:<22}{'ok' if not code else f'FAILED ({code})'}  {''.join(last)[:90]}", flush=True)
    if code:
        print(text[-3000:], flush=True)
    return not code


def alone(name, seconds):
    return _by_coverage(name, seconds) if _has_atheris() else _blindly(name, seconds)


# --- with atheris


def _by_coverage(name, seconds):
    import atheris

    with atheris.instrument_imports(include=["nsm", "dns"]):
        from .all_targets import TARGETS
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="nsm-fuzz-") as folder:
        words = Path(folder, "words")
        words.write_text("".join(f'"{_hexadecimal(word)}"\n' for word in target.words if word))
        found = Path(folder, "found")
        found.mkdir()
        options = [
            f"-max_total_time={seconds:.0f}",
            f"-max_len={LARGEST}",
            f"-rss_limit_mb={MEMORY_MIB}",
            "-timeout=20",
        ]
        options += [f"-dict={words}"] if target.words else []
        corpus = [str(found), *([str(target.folder)] if target.folder.is_dir() else [])]
        atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/", *corpus], lambda data: _kept(target, data))
        atheris.Fuzz()
    return 0


def _hexadecimal(word):
    return "".join(rf"\x{byte:02x}" for byte in word)


def _kept(target: Target, data):
    """Run it; what breaks a promise goes into the corpus first."""
    try:
        target(data)
    except BaseException:
        target.folder.mkdir(parents=True, exist_ok=True)
        path = target.folder / f"found-{hashlib.sha256(data).hexdigest()[:10]}"
        path.write_bytes(data)
        print(f"written to {path}", flush=True)
        raise


# --- without


def _blindly(name, seconds):
    from .all_targets import TARGETS

    target, seed, end, count = TARGETS[name], os.getpid(), time.monotonic() + seconds, 0
    signal.signal(signal.SIGALRM, _stuck)
    luck, seeds = random.Random(seed), list(TARGETS[name].seeds().values()) or [b""]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MIB << 21, MEMORY_MIB << 21))
    while time.monotonic() < end:
        signal.alarm(20)
        _kept(target, _mutated(luck, seeds, target.words or (b"\0",)))
        count += 1
    print(f"{count} inputs of seed {seed}")
    return 0


def _stuck(_number, _frame):
    raise TimeoutError("one input takes more than 20 seconds")


def _mutated(luck, seeds, words):
    data = bytearray(luck.choice(seeds))
    for _ in range(luck.randrange(6)):
        begin = luck.randint(0, len(data))
        end = min(len(data), begin + luck.randrange(40))
        piece = luck.choice(
            [luck.choice(words), luck.randbytes(luck.randrange(6)), bytes(data[begin:end]), luck.choice(seeds)[:100]]
        )
        data[begin : luck.choice([begin, end])] = piece * luck.choice([0, 1, 1, 1, 2, 50])
    return bytes(data[:LARGEST])


if __name__ == "__main__":
    sys.exit(main())

"""The file that says where names are looked up: changed while a wire brings DNS, restored to the byte afterwards.

Only servers and the end of the search list change. Searching stays with the resolver of the workload, which alone
knows whether a name was written with a dot at its end, and goes by its own rules (`ndots`, other options, LOCALDOMAIN):
a name that it found without the wire it finds as before, and the domains of wires come last.

What the file held is kept in itself, each line behind a ``#``, between two marks (comments that begin with ``;``, as
none of those lines does); so the next process can restore it after a crash. It is always written in place: it may be
a bind mount, its owner and mode are not ours, and a symlink stays one. Whoever has changed it holds a lock on it
(`flock`), which ends with the process.

Should somebody else write to the file meanwhile, only our part is taken out again, and what they wrote stays. Between
the two steps of making it shorter (write, cut) the file says where to cut, for the next process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nsm.chains.core import InvalidRequest
from nsm.chains.model.dns import is_server

_BEGIN = b"; nsm: begin. The commented lines are what this file was; they come back when the client of the mesh ends.\n"
_MIDDLE = b"; nsm: until then the client's own server answers, at "
_SEARCHED = b"; nsm: the domains of wires, behind the workload's own; of several such lines the last one counts\n"
_END = b"; nsm: end\n"
_CUT = b"\n; nsm: cut\n"
_PART = re.compile(
    rb"^%b(?P<commented>.*?)^%b(?P<address>[^\n]*)\n(?P<ours>.*?)^%b" % tuple(map(re.escape, (_BEGIN, _MIDDLE, _END))),
    re.MULTILINE | re.DOTALL,
)
_OUR_SEARCH = re.compile(rb"^%bsearch [^\n]*\n" % re.escape(_SEARCHED), re.MULTILINE)
_LEFT_BY_UPSTREAM = re.compile(rb"(?P<commented>(#[^\n]*\n)+)\n(?P<ours>([^#\n][^\n]*(\n|\Z))+)")
_SEARCH = (b"search", b"domain")
_EVERYBODY_READS = 0o644
_LONGEST_LINE = 254
"""Bytes of a line without its end that musl reads; it passes over a longer one as a whole (get_resolv_conf)."""


class ResolvConfError(Exception):
    """The file is left as it is; the text says why."""


class _InUseError(ResolvConfError):
    """Another process, which is alive, has changed it."""


@dataclass(frozen=True)
class Original:
    """What a resolv.conf says of servers and search domains."""

    servers: tuple[str, ...] = ()
    search_domains: tuple[str, ...] = ()


class ResolvConf:
    """The file at `path`; at most one process changes it at a time."""

    def __init__(self, path: str = "/etc/resolv.conf") -> None:
        self.path = path
        self._file: int | None = None
        """Open, and locked, while it is changed."""

    def change(self, server: str, domains: Sequence[str] = ()) -> Original | None:
        """Have names looked up at the address `server` (port 53), and searched in `domains` too, behind its own.

        Returns where they were looked up before.

        What a crashed process, or upstream's client, left is restored first. None: there is no such file, and it is
        not made, since without one names are looked up at 127.0.0.1. Raises `ResolvConfError` if the file is to be
        left as it is.
        """
        try:
            file = self._open()
        except FileNotFoundError:
            return None
        try:
            content = _as_before_upstream(_recovered(_read(file)), server)
            _write(file, _changed(content, server, domains))
        except OSError as error:
            os.close(file)
            raise self._refused(error) from None
        self._file = file
        return read_original(content)

    def search(self, server: str, domains: Sequence[str]) -> None:
        """Have names searched in `domains` from now on, in place of those that `change` was given.

        Does nothing if the file is not ours any more. Raises `ResolvConfError` if it cannot be written.
        """
        if self._file is None or not self.is_ours():
            return
        try:
            _write(self._file, _changed(_recovered(_read(self._file)), server, domains))
        except OSError as error:
            raise self._refused(error) from None

    def restore(self) -> None:
        """Undo the change; does nothing if there is none. Raises `ResolvConfError` if our part is to stay."""
        if self._file is None:
            return
        file, self._file = self._file, None
        self._restore_and_close(file)
        self.recover()  # somebody may have put a new file, with our part in it, in the place of the one that is open

    def recover(self) -> bool:
        """Restore what a process that crashed left changed; whether there was anything.

        Raises `ResolvConfError` if there is something that cannot be restored.
        """
        try:
            if not _is_marked(Path(self.path).read_bytes()):
                return False
            file = self._open()
        except (OSError, _InUseError):
            return False
        self._restore_and_close(file)
        return True

    def is_ours(self) -> bool:
        """Whether the file at the path is still the one that was changed, with our part in it."""
        if self._file is None:
            return False
        try:
            same = os.path.samestat(os.stat(self.path), os.fstat(self._file))
        except OSError:
            return False
        return same and _is_marked(_read(self._file))

    def _restore_and_close(self, file: int) -> None:
        try:
            if _is_marked(content := _read(file)):
                _write(file, _recovered(content))
        except OSError as error:
            raise self._refused(error) from None
        finally:
            os.close(file)

    def _open(self) -> int:
        """The file, locked. Raises FileNotFoundError if there is none, and `ResolvConfError`."""
        if _is_of_others(self.path):
            raise ResolvConfError(
                f"{self.path} is also that of processes in another network namespace, which cannot reach a server "
                "of ours; run the client in a mount namespace of its own"
            )
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._refused(error) from None
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise ResolvConfError(f"{self.path} cannot be changed: it is not a regular file")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise _InUseError(f"{self.path} is in use by another client of the mesh") from None
        except BaseException:
            os.close(file)
            raise
        return file

    def _refused(self, error: OSError) -> ResolvConfError:
        reasons = {errno.EROFS: "it is mounted read-only", errno.EACCES: "this user may not write it"}
        reason = reasons.get(error.errno or 0) or error.strerror or str(error)
        return ResolvConfError(f"{self.path} cannot be changed: {reason}")


def copy_if_missing(source: str, path: str) -> None:
    """Have a file at `path` that we may write, for those who are to read it in the place of `source`.

    An empty `source` is none. Raises `InvalidRequest` if it cannot be copied: who waits for the file would not start.
    """
    if not source or os.path.exists(path):
        return
    fresh = f"{path}.new"
    try:
        with open(fresh, "wb") as file:
            file.write(Path(source).read_bytes())
        os.chmod(fresh, _EVERYBODY_READS)
        os.rename(fresh, path)
    except OSError as error:
        raise InvalidRequest(
            f"NSM_RESOLV_CONF_FROM={source!r} cannot be copied to NSM_RESOLV_CONF_PATH={path!r}: {error.strerror}"
        ) from None


def read_original(content: bytes) -> Original:
    """Servers and search domains of a resolv.conf; of several `search` or `domain` lines the last one counts."""
    servers: list[str] = []
    domains: list[str] = []
    for line in content.splitlines():
        key, *values = line.split() or [b""]
        texts = [value.decode(errors="surrogateescape") for value in values]
        if key == b"nameserver":
            servers += filter(is_server, texts[:1])
        elif key in _SEARCH and texts:
            domains = texts[:1] if key == b"domain" else texts
    return Original(tuple(servers), tuple(domains))


def _changed(content: bytes, server: str, domains: Sequence[str]) -> bytes:
    commented = b"".join(b"#" + line + b"\n" for line in content.split(b"\n"))
    address = server.encode()
    ours = [_MIDDLE, address, b"\nnameserver ", address, b"\n"]
    return b"".join([_BEGIN, commented, *ours, *_kept(content), *_search_lines(content, domains), _END])


def _kept(content: bytes) -> list[bytes]:
    """What stays in force: all but servers, which the local server asks."""
    lines = [line for line in content.splitlines() if line.split() and not line.startswith((b"#", b";"))]
    return [line.rstrip() + b"\n" for line in lines if line.split()[0] != b"nameserver"]


def _search_lines(content: bytes, domains: Sequence[str]) -> list[bytes]:
    """What has `domains` searched behind those of `content`: a line that musl reads too, and one with all of them."""
    own = read_original(content).search_domains or _of_the_host()
    known = {_plain(domain) for domain in own}
    more = [domain for domain in domains if _plain(domain) not in known]
    if not more:
        return []
    fits, whole = own, (*own, *more)
    for domain in more:
        fits = (*fits, domain) if len(_search_line((*fits, domain))) <= _LONGEST_LINE else fits
    lines = [_search_line(fits), *([_search_line(whole)] if fits != whole else [])]
    return [part for line in lines for part in (_SEARCHED, line, b"\n")]


def _search_line(domains: Sequence[str]) -> bytes:
    return b"search " + " ".join(domains).encode(errors="surrogateescape")


def _plain(domain: str) -> str:
    return domain.lower().removesuffix(".")


def _of_the_host() -> tuple[str, ...]:
    """Where a resolver searches if its file names no domain: that of the host's own name, if it has one."""
    domain = socket.gethostname().partition(".")[2]
    return (domain,) if domain else ()


def _is_marked(content: bytes) -> bool:
    return _CUT in content or _PART.search(content) is not None


def _recovered(content: bytes) -> bytes:
    """`content` without our part: the lines that it had, and what others wrote before, behind or between."""
    if _CUT in content:
        return content.partition(_CUT)[0]
    if (part := _PART.search(content)) is None:
        return content
    original = _uncommented(part["commented"])
    ours = {b"nameserver " + part["address"] + b"\n", *_kept(original)}
    there = _OUR_SEARCH.sub(b"", part["ours"])
    added = b"".join(line for line in there.splitlines(keepends=True) if line not in ours)
    gap = b"\n" if added and not original.endswith(b"\n") else b""
    return b"".join([content[: part.start()], original, gap, added, content[part.end() :]])


def _as_before_upstream(content: bytes, server: str) -> bytes:
    """`content` as it was before a client of upstream changed it, which leaves it so when it ends (reference 3.21).

    It leads to `server` alone then, where nobody but ourselves answers; a file that somebody wrote so is no use either.
    """
    left = _LEFT_BY_UPSTREAM.fullmatch(content)
    if left is None or read_original(left["ours"]).servers != (server,):
        return content
    original = _uncommented(left["commented"])
    return original if read_original(original).servers else content


def _uncommented(commented: bytes) -> bytes:
    lines = commented.removesuffix(b"\n").split(b"\n")
    return b"\n".join(line.removeprefix(b"#") for line in lines)


def _read(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


def _write(file: int, content: bytes) -> None:
    """Replace what the file holds, at its place; should that fail, it holds what it held."""
    before = _read(file)
    try:
        _put(file, content)
    except OSError:
        _put(file, before)
        raise


def _put(file: int, content: bytes) -> None:
    whole = content + _CUT if os.fstat(file).st_size > len(content) else content
    if os.pwrite(file, whole, 0) < len(whole):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(file, len(content))


def _is_of_others(path: str) -> bool:
    """Whether the first process that sees this very file lives in another network: it could not reach our server.

    That is the machine's, or the container's, first process, as far as we may know; a mount namespace of our own, as
    `ip netns exec` makes one, does not make the file ours. Raises FileNotFoundError.
    """
    real = os.path.realpath(path)
    file, network = os.stat(real), os.stat("/proc/self/ns/net")
    for pid in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))):
        if _is_at(f"/proc/{pid}/root{real}", file):
            return not _is_at(f"/proc/{pid}/ns/net", network)
    return False


def _is_at(path: str, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), file)
    except OSError:  # the process ended, or belongs to another user
        return False

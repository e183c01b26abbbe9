"""/etc/resolv.conf: changed while a wire provides DNS, and restored byte by byte afterwards.

Only the servers and the end of the search list change. Searching stays with the workload's resolver: only it knows
whether a name had a trailing dot, and it has its own rules (`ndots`, other options, LOCALDOMAIN). So a name that it
found without the wire is found as before, and the domains of wires come last.

The original content is kept in the file itself, each line commented out by ``#``, between two marks (comments that
begin with ``;``), so that the next process can restore it after a crash. The file is always written in place: it may be
a bind mount, its owner and mode are not ours, and a symlink stays one. The process that changed it holds a lock on it
(`flock`), which ends with the process.

If another process writes to the file meanwhile, only our part is removed again, and its content stays. Between the
two steps of shortening it (write, truncate) the file itself marks where to truncate, for the next process.
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
"""The longest line, without its end, that musl reads; longer ones are ignored (get_resolv_conf)."""


class ResolvConfError(Exception):
    """The file is left unchanged; the text says why."""


class _InUseError(ResolvConfError):
    """Another running process has changed it."""


@dataclass(frozen=True)
class Original:
    """The servers and search domains of a resolv.conf."""

    servers: tuple[str, ...] = ()
    search_domains: tuple[str, ...] = ()


class ResolvConf:
    """The file at `path`; at most one process changes it at a time."""

    def __init__(self, path: str = "/etc/resolv.conf") -> None:
        self.path = path
        self._file: int | None = None
        """Open, and locked, while it is changed."""

    def change(self, server: str, domains: Sequence[str] = ()) -> Original | None:
        """Make the file use the `server` (port 53), and search `domains` after the file's own.

        Returns the original servers and search domains.

        Leftovers of a crashed process, or of upstream's client, are restored first. Returns None if the file does not
        exist; it is not created then, since without it, resolvers use 127.0.0.1. Raises `ResolvConfError` if the file
        must not be changed.
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
        """Replace the additional search domains by `domains`.

        Does nothing if the file is no longer ours. Raises `ResolvConfError` if it cannot be written.
        """
        if self._file is None or not self.is_ours():
            return
        try:
            _write(self._file, _changed(_recovered(_read(self._file)), server, domains))
        except OSError as error:
            raise self._refused(error) from None

    def restore(self) -> None:
        """Undo the change, if any. Raises `ResolvConfError` if our part cannot be removed."""
        if self._file is None:
            return
        file, self._file = self._file, None
        self._restore_and_close(file)
        self.recover()  # the open file may have been replaced by a new one with our part in it

    def recover(self) -> bool:
        """Undo the change of a crashed process; returns whether there was one.

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
        """Whether the file at the path is still the changed one, with our part in it."""
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
                f"{self.path} is shared with processes in another network namespace, which cannot reach our "
                "server; run the client in its own mount namespace"
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
    """Create a writable copy of `source` at `path`, for containers that read it instead of `source`.

    Does nothing if `source` is empty. Raises `InvalidRequest` if it fails, since containers wait for the file.
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
    """The lines that stay in force: all except servers, which the local server queries."""
    lines = [line for line in content.splitlines() if line.split() and not line.startswith((b"#", b";"))]
    return [line.rstrip() + b"\n" for line in lines if line.split()[0] != b"nameserver"]


def _search_lines(content: bytes, domains: Sequence[str]) -> list[bytes]:
    """Search lines with `domains` after those of `content`: one that musl can read, and one with all of them."""
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
    """The default search domain of a resolver: that of the host name, if it has one."""
    domain = socket.gethostname().partition(".")[2]
    return (domain,) if domain else ()


def _is_marked(content: bytes) -> bool:
    return _CUT in content or _PART.search(content) is not None


def _recovered(content: bytes) -> bytes:
    """`content` without our part: the original lines, and lines that others added."""
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
    """`content` as before upstream's client changed it, which it does not undo when it ends.

    It then has only `server`, which only we serve; even if a person wrote it that way, it is of no use.
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
    """Replace the file's content in place; on failure, the old content is written back."""
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
    """Whether the first process that sees this same file is in another network namespace, and cannot reach our server.

    That is the machine's or the container's first process, as far as visible. A private mount namespace, as created by
    `ip netns exec`, does not make the file private. Raises FileNotFoundError.
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

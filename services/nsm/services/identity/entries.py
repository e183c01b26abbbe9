"""Configured identities: by the socket that a process uses, by its user, or by its process id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nsm.chains.core import Refused
from nsm.chains.identity import trust_domain_of
from nsm.chains.transport import Credentials

from .processes import Process


@dataclass(frozen=True)
class Entries:
    """Identities of processes: by the socket that a process uses, else by its kernel credentials."""

    by_socket: Mapping[str, str] = field(default_factory=dict)
    by_uid: Mapping[int, str] = field(default_factory=dict)
    by_process: Mapping[int, tuple[Process, str]] = field(default_factory=dict)
    """By process id: the process that had it when the entry was read, and its identity."""

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Entries:
        """Read ``socket:/path=spiffe://..``, ``uid:1000=spiffe://..`` and ``pid:42=spiffe://..``.

        A process id selects the process that has it now, not a later one. Raises ValueError with what to write
        instead.
        """
        sockets: dict[str, str] = {}
        users: dict[int, str] = {}
        processes: dict[int, tuple[Process, str]] = {}
        seen: dict[str, str] = {}
        for text in texts:
            selector, _, spiffe_id = text.partition("=")
            if seen.setdefault(selector, spiffe_id) != spiffe_id:
                raise _malformed(text, f"{selector[:80]!r} already has another identity")
            kind, _, value = selector.partition(":")
            try:
                trust_domain_of(spiffe_id)
            except Refused as error:
                raise _malformed(text, str(error)) from None
            if kind == "socket" and value.startswith("/"):
                sockets[value] = spiffe_id
            elif kind == "uid" and _is_number(value):
                users[int(value)] = spiffe_id
            elif kind == "pid" and _is_number(value):
                processes[int(value)] = Process(int(value)), spiffe_id
            else:
                raise _malformed(text, f"{selector[:80]!r} is not a valid selector")
        return cls(sockets, users, processes)

    def ids(self) -> set[str]:
        """All identities that they assign."""
        by_process = {spiffe_id for _, spiffe_id in self.by_process.values()}
        return {*self.by_socket.values(), *self.by_uid.values(), *by_process}

    def joined(self, other: Entries) -> Entries:
        """These entries and those of `other`, which take precedence."""
        return Entries(
            {**self.by_socket, **other.by_socket},
            {**self.by_uid, **other.by_uid},
            {**self.by_process, **other.by_process},
        )

    def following(self, before: Entries) -> Entries:
        """These entries as the successor of `before`: an unchanged entry selects the same process as before.

        Otherwise, after a reload, an ended process's identity would go to a new process with the same id.
        """
        kept = {
            pid: found
            for pid, found in before.by_process.items()
            if pid in self.by_process and self.by_process[pid][1] == found[1]
        }
        return replace(self, by_process={**self.by_process, **kept})

    def ended(self) -> list[int]:
        """The process ids of entries whose process has ended, or never existed."""
        return sorted(pid for pid, (process, _) in self.by_process.items() if not process.is_alive())

    async def identify(self, socket_path: str, caller: Credentials | None) -> str:
        """The SPIFFE ID of `caller`, which connected to `socket_path`. Raises `Refused` if there is none."""
        if caller is not None and _has_ended(caller):
            raise Refused(f"no identity is issued to this caller ({_who(caller)}): its process has ended")
        spiffe_id = self.by_socket.get(socket_path)
        if spiffe_id is None and caller is not None:
            spiffe_id = self._by_process(caller) or self.by_uid.get(caller.uid)
        if spiffe_id is None:
            is_another = caller is not None and caller.pid in self.by_process
            why = ": the process that its entry selected has ended" if is_another else ""
            raise Refused(f"no identity is issued to this caller ({_who(caller)}) on {socket_path}{why}")
        return spiffe_id

    def _by_process(self, caller: Credentials) -> str | None:
        """The identity by process id: if both processes are alive and have the same id, they are the same."""
        process, spiffe_id = self.by_process.get(caller.pid, (None, None))
        if process is None or not caller.is_alive() or not process.is_alive():
            return None
        return spiffe_id


def _has_ended(caller: Credentials) -> bool:
    """Whether the process that connected has ended, even if another process holds its connection now.

    Without SO_PEERPIDFD, nothing is known about a process that is not visible from here: its id is 0.
    """
    return not caller.is_alive() and not (caller.process is None and caller.pid == 0)


def _who(caller: Credentials | None) -> str:
    return f"uid {caller.uid}, pid {caller.pid}" if caller else "unknown"


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 10


def _malformed(text: str, why: str) -> ValueError:
    wanted = "socket:/path=spiffe://domain/name, uid:1000=spiffe://.. or pid:42=spiffe://.."
    return ValueError(f"{text[:200]!r}: {why}; expected {wanted}")

"""Identities that are written down: who uses a certain socket, runs as a certain user, or has a certain process id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nsm.chains.core import Refused
from nsm.chains.identity import trust_domain_of
from nsm.chains.transport import Credentials


@dataclass(frozen=True)
class Entries:
    """Who is who: by the socket that a process uses, else by what the kernel says of it."""

    by_socket: Mapping[str, str] = field(default_factory=dict)
    by_uid: Mapping[int, str] = field(default_factory=dict)
    by_pid: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Entries:
        """Read ``socket:/path=spiffe://..``, ``uid:1000=spiffe://..`` and ``pid:42=spiffe://..``.

        Raises ValueError with what would do.
        """
        sockets: dict[str, str] = {}
        numbers: dict[str, dict[int, str]] = {"uid": {}, "pid": {}}
        for text in texts:
            selector, _, spiffe_id = text.partition("=")
            kind, _, value = selector.partition(":")
            try:
                trust_domain_of(spiffe_id)
            except Refused as error:
                raise _malformed(text, str(error)) from None
            if kind == "socket" and value.startswith("/"):
                sockets[value] = spiffe_id
            elif kind in numbers and value.isdigit():
                numbers[kind][int(value)] = spiffe_id
            else:
                raise _malformed(text, f"{selector!r} selects nobody")
        return cls(sockets, numbers["uid"], numbers["pid"])

    def joined(self, other: Entries) -> Entries:
        """These and those of `other`, which win."""
        return Entries(
            {**self.by_socket, **other.by_socket}, {**self.by_uid, **other.by_uid}, {**self.by_pid, **other.by_pid}
        )

    async def identify(self, socket_path: str, caller: Credentials | None) -> str:
        """The SPIFFE ID of `caller`, who asks on `socket_path`. Raises `Refused` if there is none."""
        spiffe_id = self.by_socket.get(socket_path)
        if spiffe_id is None and caller is not None:
            spiffe_id = self.by_pid.get(caller.pid) or self.by_uid.get(caller.uid)
        if spiffe_id is None:
            who = f"uid {caller.uid}, pid {caller.pid}" if caller else "unknown"
            raise Refused(f"no identity is issued to this caller ({who}) on {socket_path}")
        return spiffe_id


def _malformed(text: str, why: str) -> ValueError:
    wanted = "socket:/path=spiffe://domain/name, uid:1000=spiffe://.. or pid:42=spiffe://.."
    return ValueError(f"{text!r}: {why}; expected {wanted}")

"""The policies, by their NSM names.

Each examines the tokens of a path and returns the reason to refuse, or None. Reasons never contain a token.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsm.chains.core import Peer, counts

from .documents import Document
from .files import found_files
from .tokens import LEEWAY, claims_of, is_signed_by

if TYPE_CHECKING:
    from .rego import PolicyFile


@dataclass(frozen=True, slots=True)
class Path:
    """The input of a policy: the tokens of a path, its index, and the verified peer of this hop."""

    tokens: Sequence[str]
    index: int
    peer: Peer | None


Policy = Callable[[Path], str | None]
"""Returns the reason to refuse, or None."""


def tokens_valid(path: Path) -> str | None:
    """Every token is a JWT."""
    for position, token in enumerate(path.tokens):
        if claims_of(token) is None:
            fault = "is not a JWT whose `exp` and `nbf` are times"
            return f"segment {position} has no token" if not token else f"the token of segment {position} {fault}"
    return None


def tokens_expired(path: Path) -> str | None:
    """No token has expired, and all are valid already."""
    now = time.time()
    for position, token in enumerate(path.tokens):
        claims = claims_of(token)
        if claims is None or claims.expires <= now:
            return f"the token of segment {position} has expired"
        if claims.not_before > now + LEEWAY:
            return f"the token of segment {position} is not valid yet"
    return None


def tokens_chained(path: Path) -> str | None:
    """Each token was issued for the component that issued the next one."""
    chain = [claims_of(token) for token in path.tokens]
    for position, (one, following) in enumerate(itertools.pairwise(chain)):
        if one is None or following is None or one.audience is None or following.subject not in one.audience:
            return f"the token of segment {position} was not issued for the component of segment {position + 1}"
    return None


def prev_token_signed(path: Path) -> str | None:
    """The caller signed the token of its own segment."""
    if not 0 < path.index <= len(path.tokens):
        return "the path has no segment of the caller"
    if path.peer is None or not is_signed_by(path.tokens[path.index - 1], path.peer):
        return "the caller's token is not signed with the key of its certificate"
    return None


def next_token_signed(path: Path) -> str | None:
    """The peer that answered signed the token of its own segment."""
    if len(path.tokens) <= path.index + 1:
        return "the answer has no segment of the peer"
    if path.peer is None or not is_signed_by(path.tokens[path.index + 1], path.peer):
        return "the answer's token is not signed with the key of the peer's certificate"
    return None


def caller_is_named(path: Path) -> str | None:
    """The caller's token names the identity in its certificate; always in force, whichever policies are selected."""
    if not 0 < path.index <= len(path.tokens):
        return "caller_is_named: the path has no segment of the caller"
    return _names(path.tokens[path.index - 1], path.peer, "caller")


def answerer_is_named(path: Path) -> str | None:
    """The answering peer's token names the identity in its certificate; always in force."""
    if len(path.tokens) <= path.index + 1:
        return "answerer_is_named: the answer has no segment of the peer"
    return _names(path.tokens[path.index + 1], path.peer, "answerer")


def certificate_is_valid(path: Path) -> str | None:
    """The peer's certificate has not expired since it connected; always in force."""
    if path.peer is None or path.peer.expires > time.time():
        return None
    return f"certificate_is_valid: the certificate of {path.peer.spiffe_id} has expired"


def _names(token: str, peer: Peer | None, role: str) -> str | None:
    claims = claims_of(token)
    if claims is None or peer is None:
        return f"{role}_is_named: the {role}'s token cannot be read"
    if claims.subject != peer.spiffe_id:
        return f"{role}_is_named: the token of {peer.spiffe_id} names another identity"
    return None


POLICIES: dict[str, Policy] = {
    "etc/nsm/opa/common/tokens_valid.rego": tokens_valid,
    "etc/nsm/opa/common/tokens_expired.rego": tokens_expired,
    "etc/nsm/opa/common/tokens_chained.rego": tokens_chained,
    "etc/nsm/opa/server/prev_token_signed.rego": prev_token_signed,
    "etc/nsm/opa/client/next_token_signed.rego": next_token_signed,
}
CLIENT_ALLOWED = "etc/nsm/opa/registry/client_allowed.rego"
"""Only the owner of a name may register it again or remove it; the registry's Authorize checks this itself."""

SERVER_MASKS = ("etc/nsm/opa/common/.*.rego", "etc/nsm/opa/server/.*.rego")
CLIENT_MASKS = ("etc/nsm/opa/common/.*.rego", "etc/nsm/opa/client/.*.rego")
REGISTRY_SERVER_MASKS = (SERVER_MASKS[0], "etc/nsm/opa/registry/.*.rego", SERVER_MASKS[1])
REGISTRY_CLIENT_MASKS = (CLIENT_MASKS[0], "etc/nsm/opa/registry/.*.rego", CLIENT_MASKS[1])


@dataclass(frozen=True, slots=True)
class PolicySet:
    """The policies that masks select, in order: native ones, and those in files."""

    policies: tuple[tuple[str, Policy], ...]
    client_allowed: bool
    files: tuple[PolicyFile, ...] = ()
    variable: str = ""
    """The variable that configures them, which refusals name."""

    @classmethod
    def select(cls, masks: Iterable[str], variable: str = "") -> PolicySet:
        """Masks are regular expressions over names and files, such as ``etc/nsm/opa/common/.*.rego``, or file paths.

        A file with the name of a native policy replaces it. Raises ValueError for a mask that selects nothing or is not
        a regular expression, and for a file that cannot be used, with its path and line.
        """
        names: list[str] = []
        paths: dict[str, str] = {}
        for mask in masks:
            native, files = _matching(mask)
            names += [*native, *files]
            paths |= files
        native = [name for name in dict.fromkeys(names) if name not in paths]
        chosen = tuple((name, POLICIES[name]) for name in native if name in POLICIES)
        return cls(chosen, CLIENT_ALLOWED in native, _files(paths), variable)

    def __bool__(self) -> bool:
        """Whether anything is checked at all."""
        return bool(self.policies) or self.client_allowed or bool(self.files)

    def refusal(self, path: Path, *, closing: bool = False) -> str | None:
        """Why a native policy refuses `path`, as ``policy: reason``, or None. Tokens of a Close may have expired."""
        for name, policy in self.policies:
            if closing and policy is tokens_expired:
                continue
            if (reason := policy(path)) is not None:
                return self.described(f"{name.rpartition('/')[2].removesuffix('.rego')}: {reason}", path.peer)
        return None

    def refusal_of_caller(self, path: Path, *, closing: bool) -> str | None:
        """Why a native policy, or a rule that always holds, refuses the caller at the end of `path`, or None."""
        reason = self.refusal(path, closing=closing) or caller_is_named(path)
        return reason or (None if closing else certificate_is_valid(path))

    async def refusal_by_files(
        self, document: Document, peer: Peer | None, *, origin: str = "", closing: bool = False
    ) -> str | None:
        """Why a policy in a file refuses `document`, or None. Calls of one `origin` are evaluated one at a time.

        For shapes see `documents`. A policy that cannot be evaluated in time refuses.
        """
        from .rego import refusal_by_files  # noqa: PLC0415 - only where there are files

        files = [file for file in self.files if not (closing and file.name == tokens_expired.__name__)]
        whose = origin or (peer.spiffe_id if peer is not None else "")
        reason = await refusal_by_files(files, document, whose) if files else None
        return self.described(reason, peer) if reason is not None else None

    def described(self, reason: str, peer: Peer | None) -> str:
        """A policy's reason to refuse, with the refused identity and the variable to check. Counts the refusal."""
        counts.POLICIES.add(reason.partition(":")[0])
        if not self.variable or peer is None:
            return reason
        did = "answered" if self.variable.endswith("CLIENT_POLICIES") else "asked"
        return f"{reason}; {peer.spiffe_id} {did}; see {self.variable}"


def _matching(mask: str) -> tuple[list[str], dict[str, str]]:
    known = [*POLICIES, CLIENT_ALLOWED]
    try:
        native = [name for name in known if re.fullmatch(mask.lstrip("/"), name)]
        files = found_files(mask)
    except re.error as error:
        raise ValueError(f"policy {mask!r} is neither a regular expression nor a file: {error}") from None
    if not native and not files:
        raise ValueError(f"policy {mask!r} selects neither a file nor any of {', '.join(known)}")
    return native, files


def _files(paths: Mapping[str, str]) -> tuple[PolicyFile, ...]:
    if not paths:
        return ()
    from .rego import PolicyFile  # noqa: PLC0415 - the engine is optional

    return tuple(PolicyFile.at(path) for path in paths.values())

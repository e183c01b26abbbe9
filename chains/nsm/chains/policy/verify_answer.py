"""Verifies that an answer was signed by the peer that sent it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nsm.chains.core import MeshError, Peer
from nsm.chains.core.call import Hop

from .documents import Document
from .policies import Path, PolicySet, answerer_is_named, tokens_expired


async def refusal_of_answer(
    policies: PolicySet,
    call: Hop,
    tokens: Sequence[str],
    index: int,
    document: Callable[[Peer], Document],
    *,
    keeps_orphan: bool = False,
) -> str | None:
    """Why the answer to `call` is refused, or None; `tokens` and `index` are those of the returned path.

    `document` makes the input of policies in files for a peer. With `keeps_orphan` tokens before `index` may have
    expired: they are those that were sent.

    The peer may have rotated its identity since the connection was made, and so have signed with a key that we have not
    seen: its new certificate is obtained over a new connection before the answer is refused.
    """
    seen = call.server_peer
    reason = await _refusal(policies, Path(tokens, index, seen), document, keeps_orphan=keeps_orphan)
    if reason is None or seen is None or call.renew_peer is None:
        return reason
    try:
        peer = await call.renew_peer()
    except MeshError:
        return reason
    if peer.spiffe_id != seen.spiffe_id or peer.certificate_der == seen.certificate_der:
        return reason
    call.server_peer = peer
    return await _refusal(policies, Path(tokens, index, peer), document, keeps_orphan=keeps_orphan)


async def _refusal(
    policies: PolicySet, path: Path, document: Callable[[Peer], Document], *, keeps_orphan: bool
) -> str | None:
    if keeps_orphan and (reason := tokens_expired(Path(path.tokens[path.index :], 0, path.peer))) is not None:
        return reason
    reason = policies.refusal(path, closing=keeps_orphan) or (answerer_is_named(path) if policies else None)
    if reason is None and policies.files and path.peer is not None:
        return await policies.refusal_by_files(document(path.peer), path.peer, closing=keeps_orphan)
    return reason

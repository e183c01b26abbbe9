"""Whether an answer comes from who answered."""

from __future__ import annotations

from collections.abc import Sequence

from nsm.chains.core import MeshError
from nsm.chains.core.call import Hop

from .policies import Path, PolicySet, answerer_is_named


async def refusal_of_answer(policies: PolicySet, call: Hop, tokens: Sequence[str], index: int) -> str | None:
    """Why the answer to `call` is refused, or None; `tokens` and `index` are those of the path that came back.

    Who answered may have rotated its identity since the connection to it was made, and then have signed with a key
    that we have not seen: it is asked for it over a new connection before the answer is refused.
    """
    seen = call.server_peer
    reason = _refusal(policies, Path(tokens, index, seen))
    if reason is None or seen is None or call.renew_peer is None:
        return reason
    try:
        peer = await call.renew_peer()
    except MeshError:
        return reason
    if peer.spiffe_id != seen.spiffe_id or peer.certificate_der == seen.certificate_der:
        return reason
    call.server_peer = peer
    return _refusal(policies, Path(tokens, index, peer))


def _refusal(policies: PolicySet, path: Path) -> str | None:
    return policies.refusal(path) or (answerer_is_named(path) if policies else None)

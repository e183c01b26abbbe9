"""Maintains the path of a registration: the tokens of its components, and their identities in the record."""

from __future__ import annotations

from nsm.chains.core import R, RegistryCall, RegistryElement, RegistryHandler
from nsm.chains.identity import Identity
from nsm.chains.policy import claims_of


class RegistryUpdatePath(RegistryElement[R]):
    """Add the caller's token and our own to the path, and set the record's `path_ids` to the path's identities.

    Those are the subjects of the tokens, whatever the record contained before. The caller gets its own index back.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def register(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> R:
        """Advance the path, and restore the index in the result."""
        self._step(call)
        record = await rest.register(call)
        if self._identity.has_rotated_since(call.peer):
            self._sign_again(call)
        call.path.index = max(0, call.path.index - 1)
        return record

    async def unregister(self, call: RegistryCall[R], rest: RegistryHandler[R]) -> None:
        """Advance the path, and restore the index in the result."""
        self._step(call)
        await rest.unregister(call)
        call.path.index = max(0, call.path.index - 1)

    def _step(self, call: RegistryCall[R]) -> None:
        if call.peer is None:
            return
        path, theirs = call.path, call.token.token if call.token else ""
        if not path.tokens:
            path.index, path.tokens = 0, [theirs]
        path.index = min(path.index, len(path.tokens) - 1)
        path.tokens[path.index] = theirs
        path.index += 1
        _put(path.tokens, path.index, self._identity.token(call.peer).token)
        call.record.path_ids = [_subject(token) for token in path.tokens[: path.index + 1]]

    def _sign_again(self, call: RegistryCall[R]) -> None:
        """Replace our token by one signed with the key that the caller knows."""
        path = call.path
        if path.index + 1 < len(path.tokens):
            claims = claims_of(path.tokens[path.index + 1])
            own = self._identity.token(call.peer, audience=claims.subject if claims else "")
            path.tokens[path.index] = own.token


def _subject(token: str) -> str:
    claims = claims_of(token)
    return claims.subject if claims is not None else ""


def _put(items: list[str], position: int, item: str) -> None:
    """Set the item, or append it if the list is too short."""
    items[position : position + 1] = [item]

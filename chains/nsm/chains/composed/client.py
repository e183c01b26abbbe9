"""The base of everything that asks for connections."""

from __future__ import annotations

from collections.abc import Sequence

from nsm.chains.core import DEFAULT_LIMITS, Begin, Chain, Element, Handler, Limits, merge_with_returned
from nsm.chains.elements.authorize import AuthorizeClient
from nsm.chains.elements.check_values import CheckAnswer
from nsm.chains.elements.dial import ClientUrl, Dial
from nsm.chains.elements.refresh import Refresh
from nsm.chains.elements.update_path import UpdatePath
from nsm.chains.policy import CLIENT_MASKS


def client(
    name: str,
    elements: Sequence[Element],
    end: Handler,
    *,
    first: Sequence[Element] = (),
    url: str | None = None,
    refresh: bool = False,
    heal: Element | None = None,
    begin: Begin | None = None,
    policies: Sequence[str] = CLIENT_MASKS,
    limits: Limits = DEFAULT_LIMITS,
) -> Chain:
    """A client called `name` whose own part is `elements`; `end` sends what comes out: a `RemoteNetworkService`.

    Behind a server's chain of the same name it shares that one's path segment and `Begin`. `first` sees calls before
    they have a path: it may repeat them, or continue what an earlier process had. `url` is whom to ask if nobody before
    chose; `refresh` is for those that ask on their own behalf; `heal` is what restores a connection that broke. No
    answer may hold more than `limits`.
    """
    return Chain(
        [
            *first,
            UpdatePath(name, asks=True),
            Begin(merge=merge_with_returned) if begin is None else begin,
            *([Refresh()] if refresh else []),
            *([ClientUrl(url)] if url else []),
            *([heal] if heal else []),  # before dial: it may have the next request go elsewhere
            Dial(),
            *elements,
            AuthorizeClient(policies),  # behind them: sees the answer as it came
            CheckAnswer(limits),  # last: nobody works with what cannot be
        ],
        end,
    )

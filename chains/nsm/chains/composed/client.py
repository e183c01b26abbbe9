"""The base of everything that requests connections."""

from __future__ import annotations

from collections.abc import Sequence

from nsm.chains.core import DEFAULT_LIMITS, Begin, Chain, Element, Handler, Limits, merge_with_returned
from nsm.chains.elements.authorize import AuthorizeClient
from nsm.chains.elements.check_values import CheckAnswer
from nsm.chains.elements.dial import ClientUrl, Dial
from nsm.chains.elements.liveness import Liveness
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
    liveness: Liveness | None = None,
    begin: Begin | None = None,
    policies: Sequence[str] = CLIENT_MASKS,
    limits: Limits = DEFAULT_LIMITS,
) -> Chain:
    """A client called `name` whose own part is `elements`; `end`, a `RemoteNetworkService`, sends the requests.

    Behind a server's chain of the same name it shares that chain's path segment and `Begin`. `first` sees calls before
    they have a path: it may repeat them, or continue an earlier process's connections. `url` is the component to
    request from if no element chose one; `refresh` is for clients that request on their own behalf; `heal` restores
    broken connections, and `liveness` checks whether packets pass. No answer may hold more than `limits`.
    """
    return Chain(
        [
            *first,
            UpdatePath(name, asks=True),
            Begin(merge=merge_with_returned) if begin is None else begin,
            *([Refresh(liveness)] if refresh else []),
            *([ClientUrl(url)] if url else []),
            *([heal] if heal else []),  # before dial: it may send the next request elsewhere
            Dial(),
            *elements,
            AuthorizeClient(policies),  # behind them: sees the answer unchanged
            CheckAnswer(limits),  # last: no element works with an invalid answer
        ],
        end,
    )

"""The base of endpoints that stand in a chain of services: each is itself a client of the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nsm.apis.mechanisms import KERNEL
from nsm.chains.core import DEFAULT_LIMITS, Element, Limits
from nsm.chains.elements.connect import Connect
from nsm.chains.elements.descriptors import ReturnDescriptors, SendDescriptors
from nsm.chains.elements.join_sides import Joiner, JoinSides, OnJoined, ServerSide
from nsm.chains.elements.kernel import KernelClient, KernelServer
from nsm.chains.elements.kernel_joiner import KernelJoiner
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.refuse_loops import RefuseLoops
from nsm.chains.elements.request_as import RequestAs
from nsm.chains.policy import CLIENT_MASKS
from nsm.chains.transport import Pool, RemoteNetworkService

from .client import client


def passthrough(
    name: str,
    pool: Pool,
    *,
    url: str,
    labels: Mapping[str, str],
    on_joined: OnJoined | None = None,
    joiner: Joiner | None = None,
    elements: Sequence[Element] = (),
    policies: Sequence[str] = CLIENT_MASKS,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Element]:
    """The elements of an endpoint called `name` that requests the next endpoint of the same service through `url`.

    `url` is its node's manager. `labels` are those with which it requests: the matches of the service choose the next
    endpoint by them. `joiner` joins its two interfaces, in the kernel of its own network namespace if it is not given;
    `on_joined` receives their names each time when packets begin to pass. `elements` see requests before the next
    endpoint does.

    It neither refreshes nor heals: its client's requests pass here, so both wires live and end together. Its server
    needs the pool too, so that the state of what is behind reaches the client.
    """
    return [
        RefuseLoops(name, labels),  # first: a loop must not go on
        *elements,
        JoinSides(joiner or KernelJoiner(), on_joined),  # before the mechanisms: it names the interface
        Mechanisms({KERNEL: [KernelServer()]}),
        Connect(
            client(
                name,
                [
                    MechanismTranslation(),  # before the kernel's element: the other side's mechanism is not its own
                    RequestAs(labels),
                    ServerSide(),  # before the kernel's element, which completes what it requests
                    KernelClient(),
                    SendDescriptors(),
                ],
                RemoteNetworkService(pool),
                url=url,
                policies=policies,
                limits=limits,
            )
        ),
        ReturnDescriptors(),  # last: it sends the namespace that the mechanism named
    ]

"""`nsm can CLIENT SERVICE`: which endpoint a client would get, and why the others are passed over. It makes no wire."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from nsm.chains.tools.arguments import Parser
from nsm.view.model import Attempt, Candidate, ComponentState, Endpoint, Kind, Match, Service, Snapshot, Wire

from .command import Command, parser_of, run
from .errors import DOWN, OK, UsageError
from .output import BOLD, GREEN, RED, YELLOW, Cell, Output
from .target import has_begun
from .times import age
from .wires import GIVEN_UP

if TYPE_CHECKING:
    from nsm.apis.registry import NetworkService, NetworkServiceEndpoint

_REFUSED = "PermissionDenied"
_LATER = "of a later match: it is chosen if none of the others can be reached"


@dataclass(frozen=True)
class Choice:
    """An endpoint of the service, and whether the client may get it."""

    endpoint: str
    node: str
    share: int = 0
    """Its part of the client's requests, beside the shares of the others; 0 if it is passed over."""
    reason: str = ""
    """Why it is passed over, or tried last."""


@dataclass(frozen=True)
class Answer:
    """What would happen to a request."""

    client: str
    service: str
    labels: Mapping[str, str]
    node: str
    match: str
    """Which match of the service decides, and what it asks for; empty if the service has none."""
    choices: Sequence[Choice] = ()
    forwarders: Sequence[str] = ()
    """The forwarders of the client's node that respond."""
    fault: str = ""
    """Why no endpoint is chosen."""
    remedy: str = ""
    policy: str = ""
    """Which policy refused the client's last request for the service, and when; empty if none has."""
    notes: Sequence[str] = ()


def main(arguments: list[str]) -> int:
    """Tells which endpoint of a network service a client would get and why, and makes no wire.

    Labels are those of the client's wires; --label adds to them or replaces one. Exit code 0 if an endpoint would be
    chosen, 1 if not.
    """
    return run(add_options(parser_of("can", main.__doc__)), arguments, lambda command: asyncio.run(_work(command)))


def add_options(parser: Parser) -> Parser:
    """Add what the question consists of."""
    parser.add_argument("client", metavar="CLIENT", help="a client's name")
    parser.add_argument("service", metavar="SERVICE", help="a network service; of another domain: service@domain")
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="a label of the client")
    return parser


async def _work(command: Command) -> int:
    async with command.target.source() as source:
        await has_begun(source)
        snapshot = await source.snapshot()
    chosen = command.arguments
    answer = answer_to(snapshot, chosen.client, chosen.service, labels_in(chosen.label))
    return show(command.output, answer)


def labels_in(texts: Sequence[str]) -> dict[str, str]:
    """The labels of a command line. Raises `UsageError`."""
    labels = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"--label {text!r}: expected KEY=VALUE")
        labels[key] = value
    return labels


def answer_to(snapshot: Snapshot, client: str, name: str, labels: Mapping[str, str]) -> Answer:
    """What a request of `client` for the service `name` would get now. Raises `UsageError` for an unknown service."""
    from nsm.chains.elements.discover import select  # noqa: PLC0415
    from nsm.chains.errors import NotFound  # noqa: PLC0415 - these take long to import

    known = _labels_of(snapshot, client)
    node = _node_of(snapshot, client)
    notes = [] if known is not None else [f"{client} has no wires yet: only the labels given here are known"]
    used = {**(known or {}), **labels}
    service = _service(snapshot, name)
    endpoints = [each for each in snapshot.endpoints if service.name in each.services and each.domain == service.domain]
    record, records = _record(service), {each.name: _endpoint_record(each) for each in endpoints}
    shares: dict[str, int] = {}
    later: list[str] = []
    fault = remedy = ""
    try:
        first, *others = select(record, used, [*records.values()])
        shares = {each.name: share for each, share in first}
        later = [each.name for group in others for each, _ in group]
    except NotFound as error:
        fault, remedy = error.detail, error.remedy
    attempts = [each for each in snapshot.attempts if each.client == client and each.service == name]
    attempts = [each for each in attempts if each.last is None or snapshot.at - each.last < GIVEN_UP]
    failed = {each.endpoint: each for attempt in attempts for each in attempt.candidates}
    choices = [
        _choice(each, records[each.name], shares.get(each.name, 0), used, record, failed.get(each.name), snapshot.at)
        if each.name in shares or each.name not in later
        else Choice(each.name, each.node, 0, _LATER)
        for each in endpoints
    ]
    chosen = [each for each in choices if each.share]
    if chosen and all(each.reason for each in chosen):
        fault, remedy = "all that would be chosen failed at the last try", f"`nsm why {client}` shows the whole path"
    forwarders = _forwarders(snapshot, node)
    if node and not forwarders and not fault:
        fault, remedy = f"no forwarder of node {node} responds", "start a forwarder on that node"
    return Answer(
        client=client,
        service=name,
        labels=used,
        node=node,
        match=_deciding(used, service, record, [*records.values()]),
        choices=sorted(choices, key=lambda each: (-each.share, bool(each.reason), each.endpoint)),
        forwarders=forwarders,
        fault=fault,
        remedy=remedy,
        policy=_policy(attempts, snapshot.at),
        notes=notes,
    )


def _labels_of(snapshot: Snapshot, client: str) -> Mapping[str, str] | None:
    """The labels of a client's requests, as its manager has completed them; those that all of them have."""
    found = [each.labels for each in _of(snapshot, client)]
    if not found:
        return None
    return {key: value for key, value in found[0].items() if all(each.get(key) == value for each in found)}


def _node_of(snapshot: Snapshot, client: str) -> str:
    return next((each.node for each in _of(snapshot, client)), "")


def _of(snapshot: Snapshot, client: str) -> Sequence[Wire | Attempt]:
    everything: Sequence[Wire | Attempt] = (*snapshot.wires, *snapshot.attempts)
    return [each for each in everything if each.client == client]


def _service(snapshot: Snapshot, name: str) -> Service:
    for each in snapshot.services:
        if name in (each.name, f"{each.name}@{each.domain}"):
            return each
    names = sorted({each.name for each in snapshot.services})
    from nsm.chains.reading import nearest  # noqa: PLC0415

    near = nearest(name, names)
    hint = f"did you mean {near}?" if near else f"there are {', '.join(names[:8]) or 'none'}"
    raise UsageError(f"there is no network service {name!r}; {hint}")


def _record(service: Service) -> NetworkService:
    from nsm.apis.registry import Destination, Metadata, NetworkService  # noqa: PLC0415
    from nsm.apis.registry import Match as Record  # noqa: PLC0415

    return NetworkService(
        name=service.name,
        payload=service.payload,
        matches=[
            Record(
                source_selector=dict(match.selector),
                routes=[
                    Destination(destination_selector=dict(route.selector), weight=route.weight)
                    for route in match.routes
                ],
                fallthrough=match.fallthrough,
                metadata=Metadata(labels=dict(match.metadata)) if match.metadata else None,
            )
            for match in service.matches
        ],
    )


def _endpoint_record(endpoint: Endpoint) -> NetworkServiceEndpoint:
    from nsm.apis.registry import NetworkServiceEndpoint, NetworkServiceLabels  # noqa: PLC0415
    from nsm.apis.wellknown import Timestamp  # noqa: PLC0415

    return NetworkServiceEndpoint(
        name=endpoint.name,
        network_service_names=[*endpoint.services],
        network_service_labels={key: NetworkServiceLabels(labels=dict(each)) for key, each in endpoint.labels.items()},
        url=endpoint.url,
        expiration_time=Timestamp.from_seconds(endpoint.expires.timestamp()) if endpoint.expires is not None else None,
    )


def _deciding(
    labels: Mapping[str, str], service: Service, record: NetworkService, endpoints: Sequence[NetworkServiceEndpoint]
) -> str:
    """Which match decides, in words."""
    from nsm.chains.model.matching import deciding_match, differences  # noqa: PLC0415

    if not service.matches:
        return ""
    if (found := deciding_match(labels, record, endpoints)) is not None:
        place = record.matches.index(found)
        return f"match {place + 1} of {len(service.matches)}: {_match_text(service.matches[place])}"
    told = []
    for place, match in enumerate(service.matches, 1):
        lacking = differences(labels, match.selector, labels)
        why = _differing(lacking, "the client") if lacking else "it selects no endpoint, and falls through"
        told.append(f"match {place} does not: {why}")
    return "no match decides: " + "; ".join(told)


def _match_text(match: Match) -> str:
    routes = [
        f"endpoints with {_labels_text(each.selector)}" + (f" (weight {each.weight})" if each.weight else "")
        for each in match.routes
    ]
    by = f", by forwarders with {_labels_text(match.metadata)}" if match.metadata else ""
    return f"clients with {_labels_text(match.selector)} get {', or '.join(routes) or 'any endpoint'}{by}"


def _labels_text(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels.items()) or "any labels"


def _differing(differences: Sequence[tuple[str, str, str]], whose: str) -> str:
    told = [
        f"{key} of {whose} is {has!r}, not {wanted!r}" if has else f"{whose} has no label {key}={wanted}"
        for key, wanted, has in differences
    ]
    return ", ".join(told)


def _choice(
    endpoint: Endpoint,
    record: NetworkServiceEndpoint,
    share: int,
    labels: Mapping[str, str],
    service: NetworkService,
    failed: Candidate | None,
    now: datetime,
) -> Choice:
    if share:
        reason = f"answered {age(failed.at, now)} ago: {failed.sentence}" if failed is not None else ""
        return Choice(endpoint.name, endpoint.node, share, reason)
    return Choice(endpoint.name, endpoint.node, 0, _why_not(endpoint, record, labels, service, now))


def _why_not(
    endpoint: Endpoint,
    record: NetworkServiceEndpoint,
    labels: Mapping[str, str],
    service: NetworkService,
    now: datetime,
) -> str:
    """Why an endpoint is passed over."""
    from nsm.chains.elements.discover import is_expired  # noqa: PLC0415
    from nsm.chains.model.matching import deciding_match, differences, labels_of  # noqa: PLC0415

    if is_expired(record):
        return f"its record expired {age(endpoint.expires, now)} ago: it does not renew it"
    if (match := deciding_match(labels, service, [record])) is None:
        return "no match of the service is for the client's labels"
    own = labels_of(record, service.name)
    if not match.routes:
        return "the match leads to no endpoints"
    lacking = [differences(own, each.destination_selector, labels) for each in match.routes]
    if not all(lacking):
        return "the match gives it the weight 0"
    return " and ".join(dict.fromkeys(_differing(each, "the endpoint") for each in lacking))


def _forwarders(snapshot: Snapshot, node: str) -> Sequence[str]:
    return [
        each.name
        for each in snapshot.components
        if each.kind == Kind.FORWARDER and each.node == node and each.state != ComponentState.UNHEARD
    ]


def _policy(attempts: Sequence[Attempt], now: datetime) -> str:
    """Which policy refused the last request."""
    for attempt in attempts:
        if attempt.cause is not None and attempt.cause.code == _REFUSED:
            return f"{attempt.cause.component} refused it {age(attempt.last, now)} ago: {attempt.cause.sentence}"
    return ""


def show(output: Output, answer: Answer) -> int:
    """Print an answer; returns the exit code."""
    is_possible = any(each.share for each in answer.choices) and not answer.fault and not answer.policy
    if output.is_json:
        output.json({**asdict(answer), "possible": is_possible})
        return OK if is_possible else DOWN
    verdict = Cell("yes", GREEN) if is_possible else Cell("no", RED)
    output.parts(
        [Cell(answer.client, BOLD), f" asks for {answer.service} with {_labels_text(answer.labels)}: ", verdict]
    )
    for note in answer.notes:
        output.parts([Cell(note, YELLOW)])
    if answer.match:
        output.line(answer.match)
    total = sum(each.share for each in answer.choices)
    if answer.choices:
        output.table(
            ("", "ENDPOINT", "NODE", "CHOSEN", "WHY NOT"), [_row(output, each, total) for each in answer.choices]
        )
    if answer.forwarders:
        output.line(f"forwarder:  {', '.join(answer.forwarders)}")
    if answer.policy:
        output.parts(["policy:     ", Cell(answer.policy, RED)])
    if answer.fault:
        output.parts(["why:        ", Cell(answer.fault, RED)])
    if answer.remedy:
        output.line(f"what to do: {answer.remedy}")
    return OK if is_possible else DOWN


def _row(output: Output, choice: Choice, total: int) -> Sequence[str | Cell]:
    if choice.share:
        often = "always" if choice.share == total else f"{choice.share} of {total} requests"
        mark = Cell("√" if output.has_marks else "ok", GREEN)
        return mark, choice.endpoint, choice.node, often, choice.reason
    return (
        Cell("\N{MULTIPLICATION SIGN}" if output.has_marks else "no", RED),
        choice.endpoint,
        choice.node,
        "",
        choice.reason,
    )

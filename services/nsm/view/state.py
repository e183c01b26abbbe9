"""The present state of a mesh, as managers and registries report it, and what follows from each report.

It does no input or output: sources call it, and it publishes changes to its stream at once. Counts of wires are
published by `settle`, which is called a moment later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from nsm.apis.connection import Connection
from nsm.chains.errors import printable
from nsm.chains.model.domains import join

from .attempts import attempt_of
from .counted import Counts
from .directory import Directory
from .history import History
from .journal import Journal
from .model import (
    Attempt,
    Cause,
    ChangeKind,
    Component,
    ComponentState,
    Domain,
    EventKind,
    Kind,
    Node,
    Snapshot,
    Wire,
    WireState,
)
from .records import Records
from .reports import Report, report_of
from .source import name_of
from .stream import Stream
from .tally import DOMAIN, NODE, Key, Tally
from .telling import told, told_closed
from .wiring import Seen, said_of, wire_of

EXPIRY_GRACE = timedelta(seconds=30)
HEALS_WITHIN = timedelta(seconds=5)
"""How long a wire that was closed while it was down counts as one that is healed elsewhere, without an attempt."""
ABANDONED = timedelta(minutes=10)
"""How long a manager that is gone is shown as one that does not respond."""
_RECENT = 200
"""How many events are part of a snapshot."""
_WireKey = tuple[str, str]


def utc_now() -> datetime:
    """The present time, in milliseconds as everywhere in the model."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


@dataclass(slots=True)
class _Peer:
    """A manager or a registry that is watched."""

    url: str
    name: str
    kind: Kind
    state: ComponentState = ComponentState.UNKNOWN
    since: datetime | None = None
    heard: datetime | None = None
    reason: str = ""
    is_complete: bool = False
    shown: dict[str, _WireKey] = field(default_factory=dict)
    """The wire of each connection that a manager reported."""
    pending: set[str] = field(default_factory=set)
    """Those that it has not shown again since its stream was opened anew."""
    attempts: dict[str, _WireKey] = field(default_factory=dict)
    """The wire of each attempt that a manager reported, by the id of that."""


class State:
    """Wires, paths, endpoints, services, components and events; `now` is the clock."""

    def __init__(
        self,
        *,
        forwarder_service: str = "forwarder",
        now: Callable[[], datetime] = utc_now,
        history: History | None = None,
    ) -> None:
        self._now = now
        self.history = history if history is not None else History(now)
        self.stream, self.counts = Stream(self.snapshot), Counts()
        self.directory = Directory(forwarder_service)
        self._managers: dict[str, _Peer] = {}
        self._registries: dict[str, _Peer] = {}
        self._seen: dict[_WireKey, dict[tuple[str, str], Seen]] = {}
        self._wires: dict[_WireKey, Wire] = {}
        self._ids: dict[str, _WireKey] = {}
        self._attempts: dict[_WireKey, Attempt] = {}
        self._held: dict[_WireKey, tuple[Wire, datetime]] = {}
        """Wires that were closed a moment ago, since when: a client that heals closes a wire first."""
        self._told: dict[_WireKey, datetime] = {}
        """Of wires about which a component said something while they were up: when it was."""
        self._tally, self._dirty = Tally(), set[Key]()
        self._journal = Journal(self.stream, self.history)
        self.records = Records(self.directory, self._tally, self._journal, self._dirty)

    # --- what managers report

    def lost_since(self, url: str) -> datetime | None:
        """When the manager at `url` last responded; None while it responds."""
        peer = self._managers.get(url)
        if peer is None or peer.state is not ComponentState.UNHEARD:
            return None
        return peer.heard or peer.since

    def reason_of(self, url: str) -> str:
        """Why the manager at `url` does not respond, or nothing."""
        peer = self._managers.get(url)
        return peer.reason if peer is not None else ""

    def watch_manager(self, url: str, domain: str = "", node: str = "") -> None:
        """A manager is watched from now on; `node` is its node, unless a registry tells."""
        if url not in self._managers:
            self._managers[url] = _Peer(url, url, Kind.MANAGER)
            self.directory.manager(url, domain, node)
            self._dirty.add(self._node_key(url))

    def forget_manager(self, url: str) -> None:
        """A manager is not watched any longer: what only it reported is gone."""
        if (peer := self._managers.get(url)) is None:
            return
        for connection_id in [*peer.shown]:
            self._drop(peer, connection_id)
        name, node = self._key_of(peer), self._node_key(url)[1]
        del self._managers[url]
        self.directory.forget_manager(url)
        self._journal.publish(ChangeKind.COMPONENT_GONE, name)
        self._journal.publish(ChangeKind.NODE_GONE, node)

    def manager_alive(self, url: str, identity: str = "") -> None:
        """A manager responded, whatever it said; `identity` is its SPIFFE ID, if that was seen."""
        if identity:
            self.directory.identify_manager(url, identity)
        self._alive(self._managers.get(url))

    def manager_lost(self, url: str, reason: str, *, has_ended: bool = False) -> None:
        """A manager does not respond any longer: nothing is known about its wires.

        If its stream `has_ended`, what it reported is out of date, also once it responds again.
        """
        if (peer := self._managers.get(url)) is None:
            return
        if has_ended:
            for connection_id, key in peer.shown.items():
                seen = self._seen[key]
                seen[url, connection_id] = replace(seen[url, connection_id], is_shown=False)
        self._lost(peer, reason)

    def begin(self, url: str) -> None:
        """A manager begins to report everything anew."""
        if (peer := self._managers.get(url)) is not None:
            peer.pending, peer.is_complete = set(peer.shown), False
            self._forget_attempts(peer)

    def complete(self, url: str) -> None:
        """A manager has reported everything: what it did not show is not known to it."""
        if (peer := self._managers.get(url)) is None:
            return
        peer.is_complete = True
        for connection_id in peer.pending:
            key = peer.shown[connection_id]
            seen = self._seen[key]
            seen[url, connection_id] = replace(seen[url, connection_id], is_shown=False)
            self._renew(key)
        peer.pending = set()
        for key in self._ids_behind(url):
            self._renew(key)

    def report(self, url: str, connection: Connection) -> None:
        """A manager reports a connection."""
        if (peer := self._managers.get(url)) is None:
            return
        if (attempt := attempt_of(connection, self.directory.node_of(url))) is not None:
            self._attempted(peer, connection.id, attempt)
            return
        if (report := report_of(connection)) is None:
            return
        self._name_manager(peer, report)
        key, place = report.wire, (url, report.id)
        if (former := peer.shown.get(report.id)) is not None and former != key:
            self._drop(peer, report.id)
        peer.shown[report.id] = key
        peer.pending.discard(report.id)
        self._seen.setdefault(key, {})[place] = Seen(url, report)
        self._renew(key, is_news=peer.is_complete)

    def delete(self, url: str, connection_id: str) -> None:
        """A manager has closed a connection."""
        if (peer := self._managers.get(url)) is None:
            return
        if connection_id in peer.attempts:
            self._attempt_over(peer, connection_id)
        elif connection_id in peer.shown:
            self._drop(peer, connection_id)

    # --- what registries report

    def watch_registry(self, url: str, domain: str) -> None:
        """The registry of `domain` is watched from now on."""
        if url not in self._registries:
            self._registries[url] = _Peer(url, domain, Kind.REGISTRY)
            self._dirty.add((DOMAIN, domain))

    def registry_alive(self, url: str) -> None:
        """A registry responded."""
        self._alive(self._registries.get(url))

    def registry_lost(self, url: str, reason: str) -> None:
        """A registry does not respond any longer."""
        self._lost(self._registries.get(url), reason)

    # --- what is known

    def wires(self) -> list[Wire]:
        """All wires, ordered by client and interface."""
        return sorted(self._wires.values(), key=lambda each: (each.client, each.interface, each.id))

    def attempts(self) -> list[Attempt]:
        """Wires that were requested and do not exist."""
        return sorted(self._attempts.values(), key=lambda each: (each.client, each.interface, each.id))

    def components(self) -> list[Component]:
        """Registries, managers and forwarders."""
        return [
            *(self._registry(each) for each in self._registries.values()),
            *(self._manager(each) for each in self._managers.values()),
            *self.records.forwarders(),
        ]

    def nodes(self) -> list[Node]:
        """The nodes of all managers."""
        return sorted((self._node(each) for each in self._managers.values()), key=lambda node: (node.domain, node.name))

    def domains(self) -> list[Domain]:
        """The domains of all registries."""
        return [self._domain(each) for each in self._registries.values()]

    def snapshot(self, position: str | None = None) -> Snapshot:
        """Everything at this moment."""
        return Snapshot(
            at=self._now(),
            position=self.stream.position if position is None else position,
            wires=self.wires(),
            attempts=self.attempts(),
            services=self.records.services(),
            endpoints=self.records.endpoints(),
            components=self.components(),
            nodes=self.nodes(),
            domains=self.domains(),
            events=self.history.events(most=_RECENT),
        )

    def settle(self) -> None:
        """Publish what follows from changes since the last time: paths with news about components, and counts."""
        self._renew_paths()
        dirty = sorted(self._dirty)
        self._dirty.clear()
        nodes = {self._node_key(url)[1]: peer for url, peer in self._managers.items()}
        domains = {peer.name: peer for peer in self._registries.values()}
        for what, name in dirty:
            if what == NODE and name in nodes:
                self._journal.publish(ChangeKind.NODE, name, node=self._node(nodes[name]))
            elif what == DOMAIN and name in domains:
                self._journal.publish(ChangeKind.DOMAIN, name, domain=self._domain(domains[name]))
            else:
                self.records.publish(what, name)

    def tidy(self) -> None:
        """Forget connections whose manager does not show them, or does not respond, once their tokens have expired."""
        self._end_held()
        latest = self._now() - EXPIRY_GRACE
        for peer in self._managers.values():
            is_lost = peer.state is ComponentState.UNHEARD
            for connection_id, key in [*peer.shown.items()]:
                seen = self._seen[key][peer.url, connection_id]
                expires = seen.report.segments[0].expires
                if (is_lost or not seen.is_shown) and (expires is None or expires < latest):
                    self._drop(peer, connection_id)

    def abandoned(self) -> list[str]:
        """Managers that have not responded for long, and with which no forwarder is registered any longer."""
        latest, known = self._now() - ABANDONED, self.records.urls()
        return [
            peer.url
            for peer in self._managers.values()
            if peer.state is ComponentState.UNHEARD and peer.since is not None and peer.since < latest
            if peer.url not in known
        ]

    # --- inside

    def _end_held(self) -> None:
        """Forget closed wires that were not requested again."""
        latest = self._now() - HEALS_WITHIN
        for key, (_, since) in [*self._held.items()]:
            if since < latest and key not in self._attempts:
                del self._held[key]
                if key in self._wires:
                    self._remove(key)

    def _name_manager(self, peer: _Peer, report: Report) -> None:
        name = report.segments[report.index].name
        if self.directory.name_manager(peer.url, name):
            peer.name = name
            self._journal.publish(ChangeKind.COMPONENT, self._key_of(peer), component=self._manager(peer))
            self._dirty.add(self._node_key(peer.url))

    def _drop(self, peer: _Peer, connection_id: str) -> None:
        key = peer.shown.pop(connection_id)
        peer.pending.discard(connection_id)
        seen = self._seen[key]
        del seen[peer.url, connection_id]
        if not seen:
            del self._seen[key]
        self._renew(key)

    def _renew_paths(self) -> None:
        names, self.directory.news = self.directory.news, set()
        if not names:
            return
        for key, wire in [*self._wires.items()]:
            if key in self._seen and not names.isdisjoint(hop.name for hop in wire.path):
                self._renew(key, is_news=False)

    def _ids_behind(self, url: str) -> list[_WireKey]:
        """The wires whose path begins at the manager at `url`, which does not have them."""
        name = self.directory.name_of(url)
        return [
            key for key, seen in self._seen.items() if _begins_at(seen, name) and not any(at == url for at, _ in seen)
        ]

    def _renew(self, key: _WireKey, *, is_news: bool = True) -> None:
        """Make a wire anew from the reports about it, and publish it if it is another one now."""
        seen, former, now = self._seen.get(key), self._wires.get(key), self._now()
        if seen is None or self._is_leftover(seen.values()):
            self._close(key)
            return
        wire = wire_of([*seen.values()], self.directory, self, former, now, is_news=is_news)
        if self._ids.setdefault(wire.id, key) != key:
            wire = replace(wire, id=f"{wire.client}/{wire.id}")
        held = self._held.pop(key, None)
        said = self._said(key, seen.values()) if wire.state is WireState.UP else None
        if wire == former and said is None:
            return
        self._show(key, former, wire)
        if not is_news:
            return
        event = told(former or (held[0] if held is not None else None), wire)
        if event is not None:
            self._journal.note(event[0], event[1], wire=wire.id, component=wire.client, cause=wire.cause or said)
        elif said is not None:
            sentence = f"{name_of(wire)}: {said.sentence}"
            self._journal.note(EventKind.WIRE_REPAIRED, sentence, wire=wire.id, component=said.component, cause=said)

    def _said(self, key: _WireKey, seen: Iterable[Seen]) -> Cause | None:
        """What a component says about a wire that is up, unless that is known."""
        said = said_of(min(seen, key=lambda each: each.report.index).report)
        if said is None or said.at is None or said.at == self._told.get(key):
            return None
        self._told[key] = said.at
        return said

    def _show(self, key: _WireKey, former: Wire | None, wire: Wire) -> None:
        self._wires[key] = wire
        self.counts.note(wire)
        self._dirty |= self._tally.replace(former, wire)
        self._journal.publish(ChangeKind.WIRE, wire.id, wire=wire)

    def _is_leftover(self, seen: Iterable[Seen]) -> bool:
        """Whether the client's manager responds and does not have the connection: its client closed it."""
        first = min(seen, key=lambda each: each.report.index).report
        if first.index <= 1 or len(first.segments) < 2:
            return False
        peer = self._managers.get(self.directory.url_of(first.segments[1].name))
        return peer is not None and peer.is_complete and peer.state is ComponentState.UP

    def _close(self, key: _WireKey) -> None:
        """A wire was closed: if it was not well, it may be that its client is about to request it elsewhere."""
        if (wire := self._wires.get(key)) is None or key in self._held:
            return
        self._held[key] = wire, self._now()
        if wire.state in (WireState.DOWN, WireState.HEALING):
            if wire.state is WireState.DOWN:
                self._show(key, wire, replace(wire, state=WireState.HEALING, since=self._now()))
        else:
            self._remove(key)

    def _remove(self, key: _WireKey) -> None:
        wire = self._wires.pop(key)
        self.counts.forget(wire)
        self._told.pop(key, None)
        if self._ids.get(wire.id) == key:
            del self._ids[wire.id]
        self._dirty |= self._tally.replace(wire, None)
        self._journal.publish(ChangeKind.WIRE_GONE, wire.id)
        self._journal.note(EventKind.WIRE_CLOSED, told_closed(wire), wire=wire.id, component=wire.client)

    def _attempted(self, peer: _Peer, connection_id: str, attempt: Attempt) -> None:
        """A wire was requested and not made."""
        key = attempt.client, attempt.id
        former, self._attempts[key] = self._attempts.get(key), attempt
        peer.attempts[connection_id] = key
        self._journal.publish(ChangeKind.ATTEMPT, attempt.id, attempt=attempt)
        if key in self._held:
            wire = replace(self._held[key][0], state=WireState.HEALING, cause=attempt.cause)
            before = self._wires.get(key)
            since = before.since if before is not None and before.state is WireState.HEALING else self._now()
            self._show(key, before, replace(wire, since=since))
        if former is None and peer.is_complete:
            reason = f": {attempt.cause.sentence}" if attempt.cause is not None else ""
            self._journal.note(
                EventKind.WIRE_REFUSED,
                f"{name_of(attempt)} has no wire to {attempt.service} yet{reason}",
                wire=attempt.id,
                component=attempt.client,
                cause=attempt.cause,
            )

    def _attempt_over(self, peer: _Peer, connection_id: str) -> None:
        """The client has its wire, or wants it no longer."""
        key = peer.attempts.pop(connection_id)
        if (attempt := self._attempts.pop(key, None)) is not None:
            self._journal.publish(ChangeKind.ATTEMPT_GONE, attempt.id)

    def _forget_attempts(self, peer: _Peer) -> None:
        for connection_id in [*peer.attempts]:
            self._attempt_over(peer, connection_id)

    def _alive(self, peer: _Peer | None) -> None:
        if peer is None:
            return
        former, peer.state, peer.heard = peer.state, ComponentState.UP, self._now()
        if former is not ComponentState.UP:
            lost, peer.since, peer.reason = peer.since, peer.heard, ""
            self._tell_of(peer)
            if former is ComponentState.UNHEARD and lost is not None:
                seconds = (peer.heard - lost).total_seconds()
                name = self._name_of(peer)
                self._journal.note(
                    EventKind.COMPONENT_HEARD, f"{name} responds again after {seconds:.1f} s", component=name
                )

    def _lost(self, peer: _Peer | None, reason: str) -> None:
        if peer is None or peer.state is ComponentState.UNHEARD:
            return
        peer.state, peer.since, peer.reason = ComponentState.UNHEARD, self._now(), printable(reason)
        name, count = self._name_of(peer), len(set(peer.shown.values()))
        self._forget_attempts(peer)
        about = f"; nothing is known of {count} of its wires" if count else ""
        cause = Cause(sentence=peer.reason, code="unresponsive", component=name, at=peer.since)
        self._tell_of(peer)
        self._journal.note(
            EventKind.COMPONENT_UNHEARD, f"{name} does not respond: {peer.reason}{about}", component=name, cause=cause
        )

    def _tell_of(self, peer: _Peer) -> None:
        if peer.kind is Kind.REGISTRY:
            self._journal.publish(ChangeKind.COMPONENT, self._key_of(peer), component=self._registry(peer))
            self._dirty.add((DOMAIN, peer.name))
            return
        for key in dict.fromkeys(peer.shown.values()):
            self._renew(key)
        self._journal.publish(ChangeKind.COMPONENT, self._key_of(peer), component=self._manager(peer))
        self._dirty.add(self._node_key(peer.url))

    def _name_of(self, peer: _Peer) -> str:
        if peer.kind is Kind.REGISTRY:
            return f"registry of {peer.name}" if peer.name else "registry"
        return self.directory.name_of(peer.url)

    def _key_of(self, peer: _Peer) -> str:
        domain = peer.name if peer.kind is Kind.REGISTRY else self.directory.domain_of(peer.url)
        return join(self._name_of(peer), domain)

    def _node_key(self, url: str) -> Key:
        return NODE, join(self.directory.node_of(url), self.directory.domain_of(url))

    def _registry(self, peer: _Peer) -> Component:
        return Component(name=self._name_of(peer), kind=Kind.REGISTRY, domain=peer.name, url=peer.url, **_life(peer))

    def _manager(self, peer: _Peer) -> Component:
        node, domain = self.directory.node_of(peer.url), self.directory.domain_of(peer.url)
        identity = self.directory.manager(peer.url).identity
        name = self._name_of(peer)
        return Component(
            name=name, kind=Kind.MANAGER, node=node, domain=domain, url=peer.url, identity=identity, **_life(peer)
        )

    def _node(self, peer: _Peer) -> Node:
        name, domain = self.directory.node_of(peer.url), self.directory.domain_of(peer.url)
        key = join(name, domain)
        return Node(
            name=name,
            domain=domain,
            manager=self._name_of(peer),
            url=peer.url,
            state=peer.state,
            heard=peer.heard,
            forwarders=self.records.on_node(name, domain, Kind.FORWARDER),
            endpoints=self.records.on_node(name, domain, Kind.ENDPOINT),
            clients=self._tally.clients(key),
            wires=self._tally.wires(NODE, key),
            down=self._tally.down(NODE, key),
        )

    def _domain(self, peer: _Peer) -> Domain:
        nodes = [self.directory.node_of(url) for url in self._managers if self.directory.domain_of(url) == peer.name]
        return Domain(
            name=peer.name,
            registry=peer.url,
            state=peer.state,
            heard=peer.heard,
            nodes=sorted(nodes),
            wires=self._tally.wires(DOMAIN, peer.name),
            down=self._tally.down(DOMAIN, peer.name),
        )


def _begins_at(seen: Mapping[tuple[str, str], Seen], manager: str) -> bool:
    """Whether the first manager on the path of these reports is `manager`."""
    segments = next(iter(seen.values())).report.segments
    return len(segments) > 1 and segments[1].name == manager


def _life(peer: _Peer) -> dict[str, Any]:
    """The fields of a component that say whether it responds."""
    cause = Cause(sentence=peer.reason, code="unresponsive") if peer.state is ComponentState.UNHEARD else None
    return {"state": peer.state, "since": peer.since, "heard": peer.heard, "cause": cause}

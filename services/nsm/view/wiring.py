"""From the reports of several managers about one connection to one wire, with the state and cause of each hop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from nsm.apis.connection import State
from nsm.apis.mechanisms import IPSEC, KERNEL, MEMIF, NOOP, SRV6, VFIO, VLAN, VXLAN, WIREGUARD
from nsm.chains.errors import printable
from nsm.chains.model import causes
from nsm.chains.model.domains import split

from . import form
from .directory import Directory, Entry
from .model import Cause, Flow, Hop, HopState, Kind, Traffic, Wire, WireState
from .reports import Report, Segment

SETUP_MS = "nsm_setup_ms"
_TUNNELS = {VXLAN: "VXLAN", WIREGUARD: "WireGuard", IPSEC: "IPsec", VLAN: "VLAN", SRV6: "SRv6"}
_LOCAL = {(KERNEL, KERNEL): "veth", (MEMIF, MEMIF): "memif", (VFIO, VFIO): "VF"}
_VPP = "vpp"
_OF_THE_NEXT = (causes.PEER_LOST, causes.PEER_CLOSED)
_NEVER = datetime.min.replace(tzinfo=UTC)


class Heard(Protocol):
    """When managers last responded."""

    def lost_since(self, url: str) -> datetime | None:
        """When the manager at `url`, which does not respond now, last did; None while it responds."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """A report, the manager that made it, and whether that still has the connection as far as is known."""

    url: str
    report: Report
    is_shown: bool = True


def wire_of(
    seen: Sequence[Seen],
    directory: Directory,
    heard: Heard,
    former: Wire | None,
    now: datetime,
    *,
    is_news: bool = True,
) -> Wire:
    """The wire that `seen`, which is not empty, describes; `former` is what was known before.

    Unless it `is_news`, a state that was not known before may have begun at any time.
    """
    began = now if is_news or former is not None else None
    ordered = sorted(seen, key=lambda each: (each.report.index, not each.is_shown))
    first = ordered[0]
    report, lost = first.report, heard.lost_since(first.url)
    current = _current(report, ordered)
    hops = _Hops(report, current, directory, heard)
    state, cause = _state_of(first, current, hops, lost, directory)
    client = report.segments[0]
    service, domain = split(report.service)
    has_same = former is not None and former.state == state
    return Wire(
        id=client.id,
        client=client.name,
        interface=report.interface,
        service=service,
        domain=domain,
        endpoint=report.endpoint,
        node=directory.node_of(first.url),
        client_domain=directory.domain_of(first.url),
        endpoint_node=hops.entries[-1].node,
        way=_way(hops, ordered),
        client_addresses=report.client_addresses,
        endpoint_addresses=report.endpoint_addresses,
        routes=report.routes,
        mtu=report.mtu,
        labels=report.labels,
        payload=report.payload,
        state=state,
        since=former.since if has_same and former is not None else began,
        cause=cause,
        path=tuple(hops.made(former, began)),
        traffic=(traffic := _traffic(report.segments, former, now)),
        last_packet=_last_packet(traffic, former),
        heard=lost,
    )


def cause_of(metrics: Mapping[str, str], component: str) -> Cause | None:
    """What the component of a path segment with these metrics says about the wire."""
    if (said := causes.cause_in(metrics)) is None:
        return None
    return Cause(
        sentence=printable(said.sentence),
        code=printable(said.code),
        element=printable(said.element),
        component=printable(said.component) or component,
        remedy=printable(said.remedy),
        at=_time(said.at),
    )


def said_of(report: Report) -> Cause | None:
    """What a component says about a wire, whether or not it is up: the cause that is the latest one."""
    found = [cause_of(each.metrics, each.name) for each in report.segments if each.metrics]
    timed = [each for each in found if each is not None and each.at is not None]
    return max(timed, key=lambda each: each.at or _NEVER, default=None)


def is_healing(metrics: Mapping[str, str]) -> bool:
    """Whether a component says that the wire is being repaired."""
    said = causes.cause_in(metrics)
    return said is not None and said.is_healing


def _current(report: Report, ordered: Sequence[Seen]) -> dict[int, Seen]:
    """The reports of the connection as it is now, by index: those of a former path do not count."""
    found: dict[int, Seen] = {}
    for each in ordered:
        index, segments = each.report.index, report.segments
        if index < len(segments) and segments[index].id == each.report.segments[index].id:
            found.setdefault(index, each)
    return found


class _Hops:
    """The states of the components on a path."""

    def __init__(self, report: Report, current: Mapping[int, Seen], directory: Directory, heard: Heard) -> None:
        self._report, self._current = report, current
        self._lost_since = {index: heard.lost_since(seen.url) for index, seen in current.items()}
        last = len(report.segments) - 1
        self.entries: list[Entry] = []
        for index, segment in enumerate(report.segments):
            behind = self.entries[-1].kind if self.entries else None
            self.entries.append(directory.look_up(segment.name, behind, is_last=index == last))
        if self.entries[0].kind is Kind.CLIENT and len(self.entries) > 1:
            manager = self.entries[1]
            self.entries[0] = Entry(Kind.CLIENT, manager.node, manager.domain)
        self.segments = [*self._latest()]
        self.causes = [cause_of(segment.metrics, segment.name) for segment in self.segments]
        self._blame_the_next()
        self.states = self._states()

    def first_unwell(self) -> int | None:
        """The first hop that is not well, with preference for one that says why."""
        unwell = [index for index, state in enumerate(self.states) if state in (HopState.DOWN, HopState.HEALING)]
        telling = [index for index in unwell if self.causes[index] is not None]
        return next(iter(telling or unwell), None)

    def made(self, former: Wire | None, began: datetime | None) -> Iterator[Hop]:
        """The hops as the model has them."""
        before = {(hop.name, hop.id): hop for hop in former.path} if former is not None else {}
        for index, (segment, entry, state) in enumerate(zip(self.segments, self.entries, self.states, strict=True)):
            known = before.get((segment.name, segment.id))
            mechanism, interface = self._interface(index)
            yield Hop(
                name=segment.name,
                kind=entry.kind,
                node=entry.node,
                domain=entry.domain,
                identity=entry.identity,
                id=segment.id,
                state=state,
                since=known.since if known is not None and known.state == state else began,
                expires=segment.expires,
                mechanism=mechanism,
                interface=interface,
                elapsed_ms=_number(segment.metrics.get(SETUP_MS, "")),
                cause=self.causes[index] if state not in (HopState.UP, HopState.UNKNOWN) else None,
                heard=self._lost_since.get(index),
            )

    def _latest(self) -> Iterator[Segment]:
        """Each segment as reported by the nearest component in front of it, which knows it best."""
        own = self._report.segments
        nearest = own
        for index, segment in enumerate(own):
            if index in self._current and self._is_heard(index):
                nearest = self._current[index].report.segments
            yield nearest[index] if index < len(nearest) and nearest[index].id == segment.id else segment

    def _states(self) -> list[HopState]:
        """From the client on: what responding managers report is known, up to where it breaks."""
        states = [HopState.UNKNOWN] * len(self.segments)
        reporting = sorted(self._current)
        for place, index in enumerate(reporting):
            following = reporting[place + 1] if place + 1 < len(reporting) else None
            end = following if following is not None else len(states)
            if not self._is_heard(index):
                states[index] = HopState.UNHEARD
                continue
            states[index] = HopState.UP
            if self._current[index].report.state == State.UP:
                states[index:end] = [HopState.UP] * (end - index)
            elif following is not None and self._is_down(following):
                states[index:end] = [HopState.UP] * (end - index)  # they pass on what is reported behind them
            elif index + 1 < len(states):
                states[index + 1] = HopState.DOWN
        if reporting and reporting[0] > 0:
            states[: reporting[0]] = [states[reporting[0]]] * reporting[0]
            if states[0] is HopState.DOWN:
                states[: reporting[0]] = [HopState.UP] * reporting[0]
        for index, cause in enumerate(self.causes):
            said = self._said(index) if cause is not None else None
            if said is HopState.HEALING or (said is HopState.DOWN and not self.is_all_up()):
                states[index] = said
        return states

    def is_all_up(self) -> bool:
        """Whether every report about the connection as it is now says so."""
        return all(each.report.state == State.UP for each in self._current.values())

    def _blame_the_next(self) -> None:
        """A component that does not hear from the next one is well itself."""
        for index in reversed(range(len(self.causes) - 1)):  # each is passed on once
            cause = self.causes[index]
            if cause is not None and cause.code in _OF_THE_NEXT:
                self.causes[index], self.causes[index + 1] = None, self.causes[index + 1] or cause

    def _said(self, index: int) -> HopState | None:
        """What a component's cause makes of its state. A client that heals says so with the request that has healed."""
        if not is_healing(self.segments[index].metrics):
            return HopState.DOWN
        return HopState.HEALING if index or not self.is_all_up() else None

    def _is_down(self, index: int) -> bool:
        return self._is_heard(index) and self._current[index].report.state != State.UP

    def _is_heard(self, index: int) -> bool:
        return self._current[index].is_shown and self._lost_since[index] is None

    def _interface(self, index: int) -> tuple[str, str]:
        metrics, last = self.segments[index].metrics, len(self.segments) - 1
        if index == 0:
            return self._report.mechanism, self._report.interface
        side = "server_interface" if index == last else "client_interface"
        mechanism, _, name = metrics.get(side, "").partition("/")
        return mechanism, "" if name == "unknown" else name


def _state_of(
    first: Seen, current: Mapping[int, Seen], hops: _Hops, lost: datetime | None, directory: Directory
) -> tuple[WireState, Cause | None]:
    """Whether packets pass, as far as is known, and if not: why."""
    name = directory.name_of(first.url)
    if lost is not None:
        sentence = f"{name} has not responded since {form.time_text(lost)}"
        return WireState.UNHEARD, Cause(sentence=sentence, code="manager-unresponsive", component=name, at=lost)
    if not first.is_shown:
        told = f"{name} does not report it since it is back: its client has not requested it again yet, or closed it"
        return WireState.UNHEARD, Cause(sentence=told, code="not-reported", component=name)
    unwell = hops.first_unwell()
    cause = hops.causes[unwell] if unwell is not None else None
    if unwell is not None and hops.states[unwell] is HopState.HEALING:
        return WireState.HEALING, cause
    if hops.is_all_up():
        return WireState.UP, None
    if any(each.report.state in (State.REFRESH_REQUESTED, State.RESELECT_REQUESTED) for each in current.values()):
        return WireState.HEALING, cause
    return WireState.DOWN, cause or _untold(hops, unwell)


def _untold(hops: _Hops, unwell: int | None) -> Cause:
    """The cause of a wire about which no component says why it is down."""
    name = hops.segments[unwell].name if unwell is not None else ""
    told = f"{name} does not respond, or a component behind it" if name else "a component on its path does not respond"
    return Cause(sentence=told, code="no-response", component=name)


def _way(hops: _Hops, seen: Sequence[Seen]) -> tuple[str, ...]:
    """How the wire goes, section by section."""
    found: list[str] = []
    for segment, entry in zip(hops.segments, hops.entries, strict=True):
        near, far = (segment.metrics.get(f"{side}_interface", "").partition("/")[0] for side in ("server", "client"))
        if entry.kind is Kind.FORWARDER and near and far and near not in _TUNNELS:
            found.append(_section(near, far, _VPP in segment.name))
    if found := [each for each in found if each]:
        return tuple(found)
    remote = [each.report.mechanism for each in seen if each.report.is_remote]
    return tuple(_TUNNELS.get(each, each) for each in remote[:1])


def _section(near: str, far: str, is_vpp: bool) -> str:
    if far in _TUNNELS:
        return _TUNNELS[far]
    if NOOP in (near, far):
        return "VF" if VFIO in (near, far) else ""
    if (is_vpp and (near, far) == (KERNEL, KERNEL)) or {near, far} == {KERNEL, MEMIF}:
        return "VPP"
    return _LOCAL.get((near, far), "VF" if VFIO in (near, far) else far)


def _traffic(segments: Sequence[Segment], former: Wire | None, now: datetime) -> Traffic | None:
    """What the first forwarder that counts has counted at its interface towards the client."""
    for segment in segments:
        metrics = segment.metrics
        if "server_rx_bytes" in metrics:
            drops = _count(metrics, "server_drops")
            to_endpoint = Flow(
                packets=_count(metrics, "server_rx_packets"), bytes=_count(metrics, "server_rx_bytes"), drops=drops
            )
            to_client = Flow(packets=_count(metrics, "server_tx_packets"), bytes=_count(metrics, "server_tx_bytes"))
            known = former.traffic if former is not None else None
            if known is not None and (known.to_endpoint, known.to_client) == (to_endpoint, to_client):
                return known
            return Traffic(to_endpoint=to_endpoint, to_client=to_client, at=now)
    return former.traffic if former is not None else None


def _last_packet(traffic: Traffic | None, former: Wire | None) -> datetime | None:
    """When a counter was last seen to have grown."""
    if traffic is None or traffic.to_endpoint.packets + traffic.to_client.packets == 0:
        return None
    if former is not None and former.traffic is not None and traffic is former.traffic:
        return former.last_packet
    return traffic.at


def _count(metrics: Mapping[str, str], key: str) -> int:
    text = metrics.get(key, "")
    return int(text) if text.isdecimal() and text.isascii() and len(text) <= 20 else 0


def _number(text: str) -> float | None:
    try:
        value = float(text) if len(text) <= 20 else -1.0
    except ValueError:
        return None
    return value if 0 <= value < 1e9 else None


def _time(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None

"""The verdict of each policy on a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nsm.chains.identity.svid import trust_domain_of
from nsm.chains.policy import (
    FORWARDERS,
    MANAGERS,
    IdPatterns,
    PolicySet,
    Registration,
    Trust,
    answerer_is_named,
    caller_is_named,
    certificate_is_valid,
    masks,
    verified_chain,
)
from nsm.chains.policy.policies import (
    CLIENT_MASKS,
    REGISTRY_CLIENT_MASKS,
    REGISTRY_SERVER_MASKS,
    SERVER_MASKS,
    next_token_signed,
    prev_token_signed,
    tokens_expired,
)

from .recorded_call import MONITOR, REGISTRATION, RecordedCall

NATIVE = "native"
VARIABLES = {
    "NSM_SERVER_POLICIES": SERVER_MASKS,
    "NSM_CLIENT_POLICIES": CLIENT_MASKS,
    "NSM_REGISTRY_SERVER_POLICIES": REGISTRY_SERVER_MASKS,
    "NSM_REGISTRY_CLIENT_POLICIES": REGISTRY_CLIENT_MASKS,
}
_NEED_CERTIFICATE = (prev_token_signed, next_token_signed)
_NO_CERTIFICATE = "without the peer's certificate"


@dataclass(frozen=True)
class Verdict:
    """The verdict of one policy. `allows` None: not evaluated, for the `reason`. `source`: a file, or `NATIVE`."""

    policy: str
    source: str
    allows: bool | None
    reason: str = ""


@dataclass(frozen=True)
class Rules:
    """All rules of a component with these variables."""

    variable: str
    chosen: PolicySet
    trust: Trust
    registration: Registration
    forwarder_service: str
    answer: bool
    """Whether answers are tested."""

    @classmethod
    def of(cls, environ: Mapping[str, str], variable: str, given: str | None, *, answer: bool) -> Rules:
        """The rules of `variable`, or of the masks `given` instead. Raises ValueError."""
        selected = masks(environ.get(variable, ",".join(VARIABLES[variable])) if given is None else given)
        trust = Trust(
            intermediaries=IdPatterns.parse(environ.get("NSM_INTERMEDIARIES", "")),
            viewers=IdPatterns.parse(environ.get("NSM_MONITOR_VIEWERS", "")),
        )
        registration = Registration.parse(environ.get("NSM_REGISTRATION_POLICY", ""))
        service = environ.get("NSM_FORWARDER_NETWORK_SERVICE_NAME", "forwarder")
        name = variable if given is None else "--policies"
        return cls(name, PolicySet.select(selected), trust, registration, service, answer)

    def origin(self, call: RecordedCall) -> str:
        """The origin of the call, as far as components on its path may vouch for each other."""
        peer = call.path.peer
        if peer is None or self.answer:
            return ""
        domain = trust_domain_of(peer.spiffe_id)
        trust = Trust(intermediaries=self.trust.intermediaries.within(domain))
        return verified_chain(call.path.tokens, call.path.index, peer, trust)[-1]

    def usual_rules(self) -> Registration:
        """The registration rules, including the default one."""
        usual = IdPatterns([*FORWARDERS.patterns, *MANAGERS.patterns])
        return self.registration.unless_listed(self.forwarder_service, usual)


async def verdicts(rules: Rules, call: RecordedCall, *, ignore_expiry: bool = False) -> list[Verdict]:
    """The verdicts in order of evaluation: the first policy that does not allow the call decides."""
    found = [] if call.kind == MONITOR else _native(rules, call, ignore_expiry=ignore_expiry)
    for file in rules.chosen.files:
        if ignore_expiry and file.name == tokens_expired.__name__:
            found.append(Verdict(file.name, file.path, None, "skipped: expired tokens are accepted"))
            continue
        alone = PolicySet((), client_allowed=False, files=(file,))
        reason = await alone.refusal_by_files(call.document, None, origin="nsm policy")
        found.append(Verdict(file.name, file.path, reason is None, _without(file.source.title, reason)))
    if call.kind == MONITOR:
        found.append(_may_watch(rules, call))
    return [*found, *_of_registration(rules, call)]


def _native(rules: Rules, call: RecordedCall, *, ignore_expiry: bool) -> list[Verdict]:
    found = []
    for path, policy in rules.chosen.policies:
        name = path.rpartition("/")[2].removesuffix(".rego")
        if ignore_expiry and policy is tokens_expired:
            found.append(Verdict(name, NATIVE, None, "skipped: expired tokens are accepted"))
        elif policy in _NEED_CERTIFICATE and not call.has_certificate:
            found.append(Verdict(name, NATIVE, None, _NO_CERTIFICATE))
        else:
            found.append(_verdict(name, policy(call.path)))
    if rules.chosen and call.path.peer is not None:
        found += _always(rules, call)
    if rules.chosen.client_allowed and call.kind == REGISTRATION and not rules.answer:
        found.append(_client_allowed(rules, call))
    return found


def _always(rules: Rules, call: RecordedCall) -> list[Verdict]:
    named = answerer_is_named if rules.answer else caller_is_named
    found = [_verdict(named.__name__, named(call.path))]
    if call.has_certificate and not rules.answer:
        found.append(_verdict(certificate_is_valid.__name__, certificate_is_valid(call.path)))
    return found


def _verdict(name: str, reason: str | None) -> Verdict:
    return Verdict(name, NATIVE, reason is None, _without(name, reason))


def _without(name: str, reason: str | None) -> str:
    return (reason or "").removeprefix(f"{name}: ")


def _client_allowed(rules: Rules, call: RecordedCall) -> Verdict:
    name = call.document.get("resource_name", "")
    held = call.document.get("resource_path_ids_map", {}).get(name)
    owner = held[0] if isinstance(held, list) and held else None
    asking = rules.origin(call) or call.document.get("resource_id", "")
    reason = f"{str(name)[:100]!r} was registered by {str(owner)[:200]}" if owner not in (None, asking) else None
    return _verdict("client_allowed", reason)


def _of_registration(rules: Rules, call: RecordedCall) -> list[Verdict]:
    if call.kind != REGISTRATION or rules.answer or not call.services or call.path.peer is None:
        return []
    origin = rules.origin(call)
    domain = trust_domain_of(call.path.peer.spiffe_id)
    refused = rules.usual_rules().within(domain).refuses(origin, call.services)
    reason = f"{origin} may not register for {refused[:100]!r}; see NSM_REGISTRATION_POLICY" if refused else ""
    return [Verdict("registration", NATIVE, not refused, reason)]


def _may_watch(rules: Rules, call: RecordedCall) -> Verdict:
    peer = call.path.peer
    who = peer.spiffe_id if peer is not None else ""
    if peer is not None and rules.trust.viewers.within(trust_domain_of(who)).matches(who):
        return Verdict("monitor", NATIVE, allows=True, reason="NSM_MONITOR_VIEWERS lets it see everything")
    own = call.document.get("spiffe_id_connection_map", {}).get(who, [])
    selected = call.document.get("selector_connection_ids", [])
    if set(map(str, own)) & set(map(str, selected)):
        return Verdict("monitor", NATIVE, allows=True)
    return Verdict(
        "monitor",
        NATIVE,
        allows=False,
        reason=f"{who or 'an unknown peer'} is not on the path of the selected connections",
    )


def decided(found: list[Verdict]) -> Verdict | None:
    """The first that refuses."""
    return next((verdict for verdict in found if verdict.allows is False), None)

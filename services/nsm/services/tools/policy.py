"""`nsm policy test|list`: tests a call against policies, and lists the policies."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

from nsm.chains import logs
from nsm.chains.policy.policies import CLIENT_ALLOWED, POLICIES, PolicySet
from nsm.chains.terminal import escaped_lines
from nsm.chains.tools.arguments import Parser

from .recorded_call import CONNECTION, MONITOR, MOST_BYTES, RecordedCall, read_call
from .verdicts import NATIVE, VARIABLES, Rules, Verdict, decided, verdicts

_WORDS = {True: "allows", False: "refuses", None: "not asked"}
_BAD_INPUT = 2


def main(arguments: list[str]) -> int:
    """Tests which policy decides on a call, and why; lists the policies of this environment."""
    parser = Parser(
        prog="nsm policy",
        description="The policies are those of the variables that a component reads: NSM_SERVER_POLICIES, "
        "NSM_CLIENT_POLICIES, NSM_REGISTRY_SERVER_POLICIES, NSM_REGISTRY_CLIENT_POLICIES, NSM_REGISTRATION_POLICY, "
        "NSM_INTERMEDIARIES, NSM_MONITOR_VIEWERS. Exit code: 0 allowed, 1 refused, 2 something cannot be read.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    test = commands.add_parser("test", help="test a call against the policies")
    test.add_argument("call", help="a JSON file, or -: the input of a policy, a recorded Request or Register")
    test.add_argument("--policies", metavar="MASKS", help="masks and files, a,b, instead of those of the variable")
    test.add_argument("--answer", action="store_true", help="test it as an answer, with the client's policies")
    test.add_argument("--peer", default="", metavar="ID|FILE", help="the caller: a SPIFFE ID, or a certificate (PEM)")
    test.add_argument("--ignore-expiry", action="store_true", help="for a recorded call: accept expired tokens")
    every = commands.add_parser("list", help="list the policies of this environment")
    for each in (test, every):
        each.add_argument("--json", action="store_true", help="machine-readable")
    parsed = parser.parse_args(arguments)
    logs.set_up("policy", "ERROR")
    try:
        return _list(parsed) if parsed.command == "list" else _test(parsed)
    except (ValueError, OSError) as error:
        print(escaped_lines(f"nsm policy: {error}"), file=sys.stderr)
        return _BAD_INPUT


def _test(parsed: argparse.Namespace) -> int:
    call = _read(parsed.call, parsed.peer)
    side = "CLIENT" if parsed.answer else "SERVER"
    variable = f"NSM_{side}_POLICIES" if call.kind in (CONNECTION, MONITOR) else f"NSM_REGISTRY_{side}_POLICIES"
    given = "" if call.kind == MONITOR and parsed.policies is None else parsed.policies
    rules = Rules.of(os.environ, variable, given, answer=parsed.answer)
    found = asyncio.run(verdicts(rules, call, ignore_expiry=parsed.ignore_expiry))
    print(_as_json(rules, call, found) if parsed.json else escaped_lines(_as_text(rules, call, found)))
    return 1 if decided(found) else 0


def _read(name: str, peer: str) -> RecordedCall:
    text = sys.stdin.read(MOST_BYTES + 1) if name == "-" else _text_of(name)
    try:
        return read_call(text, peer if not peer or peer.startswith("spiffe://") else _text_of(peer))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _text_of(name: str) -> str:
    with Path(name).open(encoding="utf-8") as file:
        return file.read(MOST_BYTES + 1)


def _as_text(rules: Rules, call: RecordedCall, found: list[Verdict]) -> str:
    peer, origin = call.path.peer, rules.origin(call)
    did = "answered" if rules.answer else "asked"
    who = f"{peer.spiffe_id} {did}" if peer is not None else f"an unknown peer {did}"
    behind = f", for {origin}" if peer is not None and origin not in ("", peer.spiffe_id) else ""
    lines = [f"{call.kind}: {who}{behind}"]
    lines += [f"  {_WORDS[each.allows]:<10} {each.policy:<20} {each.source}{_behind(each.reason)}" for each in found]
    deciding = decided(found)
    if deciding is None:
        lines.append("allowed")
    else:
        lines.append(f"refused by {deciding.policy}: {deciding.reason}; see {_variable(rules, deciding)}")
    return "\n".join(lines)


def _behind(reason: str) -> str:
    return f": {reason}" if reason else ""


def _variable(rules: Rules, deciding: Verdict) -> str:
    return {"registration": "NSM_REGISTRATION_POLICY", "monitor": "NSM_MONITOR_VIEWERS"}.get(
        deciding.policy, rules.variable
    )


def _as_json(rules: Rules, call: RecordedCall, found: list[Verdict]) -> str:
    deciding, peer = decided(found), call.path.peer
    return json.dumps(
        {
            "kind": call.kind,
            "allowed": deciding is None,
            "decided_by": deciding.policy if deciding else None,
            "reason": deciding.reason if deciding else None,
            "variable": _variable(rules, deciding) if deciding else None,
            "peer": peer.spiffe_id if peer is not None else None,
            "origin": rules.origin(call) or None,
            "policies": [
                {"policy": each.policy, "source": each.source, "verdict": _WORDS[each.allows], "reason": each.reason}
                for each in found
            ],
        }
    )


def _list(parsed: argparse.Namespace) -> int:
    everything = _everything()
    if parsed.json:
        print(json.dumps(everything))
        return 0
    for title, entries in everything.items():
        print(title)
        for entry, meaning in entries.items():
            print(escaped_lines(f"  {entry:<44} {meaning}".rstrip()))
    return 0


def _everything() -> dict[str, dict[str, str]]:
    selected = {variable: Rules.of(os.environ, variable, None, answer=False) for variable in VARIABLES}
    rules = next(iter(selected.values()))
    registration = rules.usual_rules().rules
    return {
        **{variable: _names(each.chosen) for variable, each in selected.items()},
        "native": {
            **{name: (policy.__doc__ or "").strip() for name, policy in POLICIES.items()},
            CLIENT_ALLOWED: "Only the owner of a name may register it again or remove it.",
        },
        "NSM_REGISTRATION_POLICY": {service: "|".join(who.patterns) for service, who in registration.items()},
        "NSM_INTERMEDIARIES": dict.fromkeys(rules.trust.intermediaries.patterns, ""),
        "NSM_MONITOR_VIEWERS": dict.fromkeys(rules.trust.viewers.patterns, ""),
    }


def _names(chosen: PolicySet) -> dict[str, str]:
    native = [name for name, _ in chosen.policies] + ([CLIENT_ALLOWED] if chosen.client_allowed else [])
    return dict.fromkeys(native, NATIVE) | {file.path: f"a file: {file.name}" for file in chosen.files}

"""`nsm check`: groups of findings with a mark each, and how to fix faults."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from .identity import identity
from .kernel import namespaces, wires
from .meshes import meshes
from .model import Finding, Group, State, error, worst
from .node import manager
from .packages import packages
from .programs import programs
from .user import capabilities

GROUPS = (
    Group("python", packages),
    Group("namespaces", namespaces),
    Group("wires", wires),
    Group("this user on a real node", capabilities),
    Group("manager", manager),
    Group("identity", identity),
    Group("programs", programs),
    Group("local meshes", meshes),
)
MARKS = {State.OK: "√", State.WARNING: "‼", State.ERROR: "\N{MULTIPLICATION SIGN}"}
_PLAIN_MARKS = {State.OK: "ok", State.WARNING: "!!", State.ERROR: "no"}
_COLORS = {State.OK: "32", State.WARNING: "33", State.ERROR: "31"}

_ENDS = {
    State.OK: "Everything works.",
    State.WARNING: "A mesh can run here, but not with every feature: see the warnings.",
    State.ERROR: "A mesh cannot run here: see the errors.",
}

Results = Sequence[tuple[str, Sequence[Finding]]]


def main(arguments: list[str]) -> int:
    """Shows what this machine and this user can do; exits 0 if a mesh can run (maybe with warnings), 1 if not."""
    parser = argparse.ArgumentParser(prog="nsm check", description=main.__doc__)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parsed = parser.parse_args(arguments)
    results = [(group.name, _findings(group)) for group in GROUPS]
    state = worst([finding for _, findings in results for finding in findings])
    if parsed.json:
        print(json.dumps(as_json(results, state), indent=2))
    else:
        print("\n".join(lines(results, state, sys.stdout, os.environ)))
    return 1 if state is State.ERROR else 0


def _findings(group: Group) -> list[Finding]:
    """The findings of a group; a probe that raises becomes a finding, and does not affect other groups."""
    found: list[Finding] = []
    try:
        found.extend(group.find())
    except Exception as failure:
        found.append(error(group.name, f"this check failed: {failure!r}", "please report this"))
    return found


def as_json(results: Results, state: State) -> dict[str, object]:
    """The findings as plain data."""
    groups = [{"name": name, "checks": [_check(finding) for finding in findings]} for name, findings in results]
    return {"state": state.value, "groups": groups}


def _check(finding: Finding) -> dict[str, str]:
    return {"name": finding.name, "state": finding.state.value, "detail": finding.detail, "hint": finding.hint}


def lines(
    results: Results, state: State, out: TextIO, environment: Mapping[str, str], ends: Mapping[State, str] = _ENDS
) -> Iterator[str]:
    """The output for people; with marks that `out` can show, and colours if it is a terminal without NO_COLOR."""
    marks = MARKS if _shows(out, MARKS) else _PLAIN_MARKS
    colored = out.isatty() and not environment.get("NO_COLOR")
    for name, findings in results:
        yield name
        yield "-" * len(name)
        for finding in findings:
            mark = marks[finding.state]
            yield f"{_colored(mark, finding.state) if colored else mark} {finding.detail}"
            if finding.hint:
                yield f"    {finding.hint}"
        yield ""
    yield ends[state]


def _colored(mark: str, state: State) -> str:
    return f"\033[{_COLORS[state]}m{mark}\033[0m"


def _shows(out: TextIO, marks: Mapping[State, str]) -> bool:
    try:
        "".join(marks.values()).encode(out.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True

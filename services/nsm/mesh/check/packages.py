"""Python, and the packages that the installed parts of the project need."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version

from .model import Finding, error, ok, warning

PARTS = ("nsm-apis", "nsm-chains", "nsm-forwarder-kernel", "nsm-services")
_OLDEST_PYTHON = (3, 11)
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(\[[^\]]*\])?\s*(?P<rule>[^;]*)(;.*extra == ['\"](?P<extra>[^'\"]+)['\"])?"
)
_FOR = {"dns": "local DNS of a client", "mesh": "local mesh"}
"""The purpose of extras; other extras are optional, and not reported."""


def packages() -> Iterator[Finding]:
    """Whether all packages are installed in suitable versions."""
    yield _python()
    installed = [part for part in PARTS if _version(part)]
    versions = {str(_version(part)) for part in installed}
    if len(versions) > 1:
        listed = ", ".join(f"{part} {_version(part)}" for part in installed)
        yield error("parts", f"parts of different versions: {listed}", "install them together, in one pip command")
    else:
        yield ok("parts", f"{', '.join(installed)}: {' '.join(versions)}")
    faults = [fault for part in installed for fault in _faults(distribution(part))]
    yield from faults or [ok("requirements", "all required packages are installed")]


def _python() -> Finding:
    if sys.version_info < _OLDEST_PYTHON:
        oldest = ".".join(map(str, _OLDEST_PYTHON))
        return error("python", f"Python {platform.python_version()} is too old", f"use Python {oldest} or newer")
    return ok("python", f"Python {platform.python_version()}, Linux {platform.release()}")


def _faults(part: Distribution) -> Iterator[Finding]:
    missing: dict[str, list[str]] = {}
    for requirement in part.requires or []:
        found = _REQUIREMENT.match(requirement)
        if found is None or found["name"] in PARTS:
            continue
        wrong = wrong_version(found["name"], found["rule"].strip(), _version(found["name"]))
        if wrong and found["extra"]:
            missing.setdefault(found["extra"], []).append(wrong)
        elif wrong:
            yield error("requirements", f"{part.name} needs {wrong}", f"pip install {part.name}")
    for extra in missing.keys() & _FOR.keys():
        detail = f"no {_FOR[extra]}: {', '.join(missing[extra])} missing"
        yield warning(f"extra-{extra}", detail, f"pip install '{part.name}[{extra}]'")


def wrong_version(name: str, rule: str, present: str | None) -> str | None:
    """What is wrong with the `present` version of a package, or None; understands the rules >= and ==."""
    if present is None:
        return f"{name}{rule}"
    for single in filter(None, rule.split(",")):
        wanted = single.lstrip("><=!~ ")
        too_old = single.startswith(">=") and _numbers(present) < _numbers(wanted)
        other = single.startswith("==") and _numbers(present) != _numbers(wanted)
        if too_old or other:
            return f"{name}{rule} ({present} is installed)"
    return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

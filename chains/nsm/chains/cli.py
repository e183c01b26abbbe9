"""The `nsm` command: finds components and tools by the entry points of what is installed.

An image that has only the forwarder has only `nsm forwarder-kernel`. An entry point of group ``nsm.commands`` is a
function ``main(arguments: list[str]) -> int``; its docstring's first line is the help.
"""

from __future__ import annotations

import difflib
import sys
from importlib.metadata import EntryPoint, entry_points

GROUP = "nsm.commands"


def main(arguments: list[str] | None = None) -> int:
    """Run `nsm COMMAND ...`; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    commands = {point.name: point for point in entry_points(group=GROUP)}
    if not words or words[0] in {"-h", "--help", "help"}:
        print(_usage(commands))
        return 0 if words else 2
    if words[0] not in commands:
        near = difflib.get_close_matches(words[0], commands, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(sorted(commands))}"
        print(f"nsm: there is no command {words[0]!r}{hint}", file=sys.stderr)
        return 2
    try:
        result: int = commands[words[0]].load()(words[1:])
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    return result


def _usage(commands: dict[str, EntryPoint]) -> str:
    lines = [f"  nsm {name:<18}{_about(point)}" for name, point in sorted(commands.items())]
    return "\n".join(["Network Service Mesh.", "", *lines, "", "nsm COMMAND --help says more of one."])


def _about(point: EntryPoint) -> str:
    text: str = point.load().__doc__ or ""
    return text.strip().partition("\n")[0]

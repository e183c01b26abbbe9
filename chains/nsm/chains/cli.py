"""The `nsm` command: finds components and tools by the entry points of what is installed.

An image that has only the forwarder has only `nsm forwarder-kernel`. An entry point of group ``nsm.commands`` is a
function ``main(arguments: list[str]) -> int``; the first line of its docstring is the help. It names the extras that it
needs, as in ``nsm.mesh.cli:main [mesh]``; if they are missing, the command prints what to install.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points

from nsm.chains.terminal import columns

from .importing import without_garbage_collection

GROUP = "nsm.commands"
_HELP, _VERSION = {"-h", "--help", "help"}, {"-V", "--version", "version"}


def main(arguments: list[str] | None = None) -> int:
    """Run `nsm COMMAND ...`; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    commands = {point.name: point for point in entry_points(group=GROUP)}
    if not words or words[0] in _HELP | _VERSION:
        print(_versions() if words and words[0] in _VERSION else _usage(commands))
        return 0 if words else 2
    if words[0] not in commands:
        print(f"nsm: unknown command {words[0]!r}; {_hint(words[0], commands)}", file=sys.stderr)
        return 2
    point = commands[words[0]]
    try:
        with without_garbage_collection():
            command = point.load()
        result: int = command(words[1:])
    except ModuleNotFoundError as error:
        if not point.extras and not (error.name or "").startswith("nsm."):
            raise
        print(f"nsm {point.name}: {_missing(point, error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    return result


def _hint(word: str, commands: dict[str, EntryPoint]) -> str:
    import difflib  # noqa: PLC0415 - only where a word is wrong

    near = difflib.get_close_matches(word, commands, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    names = ", ".join(sorted(commands))
    return f"the commands are {names}; nsm-services, nsm-forwarder-kernel, nsm-forwarder-sriov and nsm-webhook add more"


def _usage(commands: dict[str, EntryPoint]) -> str:
    lines = columns([(f"nsm {name}", _about(point)) for name, point in sorted(commands.items())])
    return "\n".join(
        [
            "Network Service Mesh.",
            "",
            *lines,
            "",
            "nsm COMMAND --help explains a command, nsm --version shows what is installed.",
        ]
    )


def _versions() -> str:
    """The version, and those of what is installed, on one line each."""
    import platform  # noqa: PLC0415 - only where it is wanted
    from importlib.metadata import distributions  # noqa: PLC0415

    parts = sorted({(each.name, each.version) for each in distributions() if (each.name or "").startswith("nsm-")})
    own = next((version for name, version in parts if name == "nsm-chains"), "unknown")
    return "\n".join([f"nsm {own}", *columns(parts), f"Python {platform.python_version()}"])


def _about(point: EntryPoint) -> str:
    try:
        text: str = point.load().__doc__ or ""
    except ModuleNotFoundError as error:
        return f"({_missing(point, error)})"
    return text.strip().partition("\n")[0]


def _missing(point: EntryPoint, error: ModuleNotFoundError) -> str:
    package = point.dist.name if point.dist is not None else ""
    extras = f"[{','.join(point.extras)}]" if point.extras else ""
    return f"the module {error.name} is missing: pip install '{package}{extras}'"

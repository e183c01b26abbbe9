"""`nsm completion`: completes commands and options in a shell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .arguments import Parser
from .manual import Manual, manuals, paths


def main(arguments: list[str]) -> int:
    """Prints the script that completes `nsm` in bash, zsh or fish: source <(nsm completion bash)."""
    parser = Parser(prog="nsm completion", description=main.__doc__)
    parser.add_argument("shell", choices=sorted(_SHELLS), metavar="SHELL", help="bash, fish or zsh")
    print(script(parser.parse_args(arguments).shell, manuals()), end="")
    return 0


def script(shell: str, known: Mapping[str, Manual]) -> str:
    """The script of a shell, for these commands."""
    top = Manual("nsm", commands=known)
    return "".join(f"{line}\n" for line in _SHELLS[shell]([top, *paths(known)]))


def _bash(all_of_them: list[Manual]) -> Iterator[str]:
    yield "_nsm() {"
    yield "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} at=nsm words= each"
    yield '    for each in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do'
    yield '        case "$at $each" in'
    yield f'            {_cases(all_of_them)}) at="$at $each" ;;'
    yield "        esac"
    yield "    done"
    yield '    case "$at $before" in'
    for place, choices in _choices(all_of_them):
        yield f"        {_quoted(place)}) words={_quoted(' '.join(choices))} ;;"
    yield '        *) case "$at" in'
    for each in all_of_them:
        yield f"            {_quoted(each.name)}) words={_quoted(' '.join(_words(each)))} ;;"
    yield "        esac ;;"
    yield "    esac"
    yield '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")'
    yield "}"
    yield "complete -o default -F _nsm nsm"


def _zsh(all_of_them: list[Manual]) -> Iterator[str]:
    yield "#compdef nsm"
    yield "_nsm() {"
    yield "    local at=nsm each before=${words[CURRENT-1]}"
    yield "    local -a found"
    yield "    for each in ${words[2,CURRENT-1]}; do"
    yield '        case "$at $each" in'
    yield f'            ({_cases(all_of_them)}) at="$at $each" ;;'
    yield "        esac"
    yield "    done"
    yield '    case "$at $before" in'
    for place, choices in _choices(all_of_them):
        yield f"        ({_quoted(place)}) compadd -- {' '.join(map(_quoted, choices))}; return ;;"
    yield "    esac"
    yield '    case "$at" in'
    for each in all_of_them:
        described = " ".join(_quoted(f"{_plain(word)}:{about}") for word, about in _words(each).items())
        yield f"        ({_quoted(each.name)}) found=({described}) ;;"
    yield "    esac"
    yield "    _describe nsm found || _files"
    yield "}"
    yield 'if [ "$funcstack[1]" = "_nsm" ]; then _nsm "$@"; else compdef _nsm nsm; fi'


def _plain(word: str) -> str:
    return word.replace("\\", "\\\\").replace(":", "\\:")


def _fish(all_of_them: list[Manual]) -> Iterator[str]:
    yield "function __nsm_is_at"
    yield "    set -l at nsm"
    yield "    for each in (commandline -opc)[2..]"
    yield '        switch "$at $each"'
    yield f"            case {_cases(all_of_them, ' ')}"
    yield '                set at "$at $each"'
    yield "        end"
    yield "    end"
    yield '    test "$at" = "$argv"'
    yield "end"
    for each in all_of_them:
        at = f"complete -c nsm -n {_quoted(f'__nsm_is_at {each.name}')}"
        for name, command in each.commands.items():
            yield f"{at} -f -a {_quoted(name)} -d {_quoted(command.summary)}"
        for option in each.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = f" -x -a {_quoted(' '.join(option.choices))}" if option.choices else " -r" if option.value else ""
            if names:
                yield f"{at} {names}{value} -d {_quoted(option.about)}"


_SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}


def _words(manual: Manual) -> dict[str, str]:
    """The words that may follow a command, with what they mean."""
    words = {name: command.summary for name, command in manual.commands.items()}
    for option in manual.options:
        if option.names:
            words |= dict.fromkeys(option.names, option.about)
        else:
            words |= dict.fromkeys(option.choices, "")
    return words


def _choices(all_of_them: list[Manual]) -> Iterator[tuple[str, list[str]]]:
    """Commands with an option whose value is one of some, and these."""
    for each in all_of_them:
        for option in each.options:
            if option.choices:
                yield from ((f"{each.name} {name}", [*option.choices]) for name in option.names)


def _cases(all_of_them: list[Manual], between: str = "|") -> str:
    return between.join(_quoted(each.name) for each in all_of_them if each.name != "nsm")


def _quoted(text: str) -> str:
    """For all three shells, as one line."""
    return "'" + " ".join(text.split()).replace("'", "\N{RIGHT SINGLE QUOTATION MARK}") + "'"

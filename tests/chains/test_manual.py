"""Completion and man pages, made from the commands' own parsers."""

import argparse
import subprocess

import pytest

from nsm.chains import cli
from nsm.chains.tools import completion, man
from nsm.chains.tools.manual import Manual, Option, manuals, paths, read


@pytest.fixture(scope="module")
def known():
    return manuals()


def completed(known, folder, *words):
    """What bash offers behind `words`."""
    path = folder / "nsm.bash"
    path.write_text(completion.script("bash", known))
    program = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _nsm; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", program, "bash", str(path), *words], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_their_commands_options_and_values(known, tmp_path):
    assert completed(known, tmp_path, "nsm", "mes") == ["mesh"]
    assert completed(known, tmp_path, "nsm", "mesh", "st") == ["status", "start"]
    assert completed(known, tmp_path, "nsm", "mesh", "--name", "lab", "logs", "--s") == ["--since"]
    assert completed(known, tmp_path, "nsm", "top", "--sort", "p") == ["packets"]
    assert completed(known, tmp_path, "nsm", "completion", "z") == ["zsh"]
    assert completed(known, tmp_path, "nsm", "wires", "x") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_every_command_and_option(known, shell):
    text = completion.script(shell, known)
    for each in paths(known):
        assert f"{each.name}'" in text
        for option in each.options:
            for name in option.names:
                assert (name.lstrip("-") if shell == "fish" else name) in text


def test_a_quote_in_a_help_does_not_end_the_text_of_a_shell():
    odd = Manual("nsm odd", "It's odd; $(touch x) `y`.", options=[Option(["--it"], "it's\nhere")])
    for shell in ("bash", "zsh", "fish"):
        lines = completion.script(shell, {"odd": odd}).splitlines()
        assert all(line.count("'") % 2 == 0 for line in lines)


def test_the_manual_of_a_command_is_what_its_parser_has(known):
    logs = known["mesh"].commands["logs"]
    options = {each.names[-1]: each for each in logs.options if each.names}
    assert (options["--tail"].value, options["--follow"].value) == ("LINES", "")
    assert [each.value for each in logs.options if not each.names] == ["COMPONENT|WORKLOAD"]
    assert known["wires"].summary.startswith("Lists the wires of a mesh")
    assert known["registry"].is_component
    assert "NSM_LOG_LEVEL" in known["registry"].about


def test_options_that_help_hides_are_in_no_manual():
    parser = argparse.ArgumentParser()
    parser.add_argument("--secret", help=argparse.SUPPRESS)
    assert [each.names for each in read(parser, "x").options] == [["-h", "--help"]]


def test_every_command_has_a_man_page(known, tmp_path):
    written = {path.name: path.read_text() for path in man.write(tmp_path / "man", known)}
    assert written.keys() == {"nsm.1", *(f"nsm-{name}.1" for name in known)}
    for name, text in written.items():
        assert text.startswith(f'.TH "{name.removesuffix(".1").upper()}" "1"')
        assert ".SH NAME" in text
    assert "\\fB\\-\\-since\\fR \\fITIME\\fR" in written["nsm-mesh.1"]
    assert "nsm mesh logs" in written["nsm-mesh.1"].replace("\\", "")


def test_a_line_that_begins_with_a_dot_is_no_macro():
    lines = [*man.page(Manual("nsm x", ".de is text\nand this\n\n'so", is_component=True))]
    assert "\\&.de is text" in lines
    assert "\\&'so" in lines


@pytest.mark.parametrize("word", ["--version", "-V", "version"])
def test_the_version_is_shown_with_that_of_each_package(word, capsys):
    assert cli.main([word]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("nsm 0.")
    assert any(line.split()[0] == "nsm-services" for line in others)
    assert others[-1].startswith("Python 3.")

"""Plain English in pages, help, logs, errors and docstrings: the worst phrases of earlier versions stay out."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PHRASES = {
    r"what would do\b": "what to write instead",
    r"\bwill do\b": "is enough; are allowed",
    r"\b(hears?|heard) (of|what|why|each|all|that)\b": "is notified of; receives",
    r"\b(is|are|was|were) told (of|what|why|that|the|each|to|by|where|whom|as|once|apart from)\b": "is notified; receives",
    r"\b(is|are) heard\b": "is received",
    r"\bunheard\b": "unresponsive",
    r"\bno more\b(?! than| of| in)": "no longer",
    r"\bis no more\b": "is gone",
    r"\bsomebody\b": "another component, identity or process; a person",
    r"\bnobody\b": "no component; nothing; no one",
    r"\beverybody\b": "everyone; all components",
    r"\bwhat cannot be\b": "invalid values; whatever is invalid",
    r"\bthat (is|are) none\b": "that is invalid; that is not one",
    r"\bis none of\b": "is not one of",
    r"\blacks\b": "has no; is missing",
    r"\b(a|the|his|its|one|of|these|those|every) wish(es)?\b": "a requested wire; a request",
    r"(?<!cut,\s)\bmend(s|ed|ing)?\b": "fix; restore",
    r"\b(is|are) gone and back\b": "restarts",
    r"\bis taken out\b": "is removed",
    r"\b(is|are) asked for anew\b": "is requested again",
    r"\bas it stands\b": "unchanged",
    r"\bthat there (is|are) not\b": "that do not exist; unknown",
    r"\bfor ever\b": "forever",
}
"""Regular expressions, without regard to case, and what to write instead."""

NOT_YET: list[str] = []
"""Folders and pages whose words are still to be changed."""

GENERATED = ["apis/nsm/apis/_generated/", "docs/element-index.md", "docs/configuration.md"]
"""From docstrings and help texts elsewhere, or from .proto files."""

QUOTED = re.compile(r"```.*?```|^(?: {4}|\t)[^\n]*|`[^`\n]*`|https?://\S+", re.DOTALL | re.MULTILINE)
"""Code, output and addresses in a page: blanked out, so that line numbers stay."""

LOGS = {"debug", "info", "warning", "error", "exception", "critical", "warn"}


def pages():
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def modules():
    parts = (
        "apis",
        "chains",
        "forwarder-kernel",
        "forwarder-sriov",
        "services",
        "webhook",
        "bench",
        "examples",
        "scripts",
    )
    return sorted(path for part in parts for path in (ROOT / part).rglob("*.py"))


def is_left_out(path, *lists):
    name = path.relative_to(ROOT).as_posix()
    return any(name.startswith(folder) for each in lists for folder in each)


def prose_of(page):
    """The prose of a page, as one text whose lines are those of the page."""
    text = page.read_text()
    return QUOTED.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def texts_of(source):
    """Line and text of each docstring, help text, log message and error text of a module."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value  # a docstring, of whatever
        elif isinstance(node, ast.Raise) and node.exc is not None:
            yield from literals(node.exc)
        elif isinstance(node, ast.Call) and is_read_by_people(node.func):
            yield from literals(node)


def is_read_by_people(function):
    if isinstance(function, ast.Attribute):
        return function.attr in LOGS or function.attr in {"fault", "add_argument", "add_parser", "_say"}
    return isinstance(function, ast.Name) and function.id in {"variable", "print", "InvalidRequest", "Refused"}


def literals(node):
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and " " in part.value:
            yield part.lineno, part.value


def compiled(phrase):
    """A phrase may be broken over two lines."""
    return re.compile(phrase.replace(" ", r"\s+"), re.IGNORECASE)


COMPILED = [(compiled(phrase), instead) for phrase, instead in PHRASES.items()]
ANY = compiled("|".join(f"(?:{phrase})" for phrase in PHRASES))


def findings(name, line, text):
    """Where `text`, which begins at `line`, has one of the phrases, and what to write instead."""
    if ANY.search(text) is None:
        return
    for pattern, instead in COMPILED:
        for found in pattern.finditer(text):
            at = line + text.count("\n", 0, found.start())
            yield f"{name}:{at}: {' '.join(found[0].split())!r}: write {instead}"


def found_in_pages(paths):
    return [
        each
        for path in paths
        if not is_left_out(path, GENERATED, NOT_YET)
        for each in findings(path.relative_to(ROOT), 1, prose_of(path))
    ]


def found_in_modules(paths):
    return [
        each
        for path in paths
        if not is_left_out(path, GENERATED, NOT_YET) and ANY.search(source := path.read_text())
        for line, text in texts_of(source)
        for each in findings(path.relative_to(ROOT), line, text)
    ]


def test_pages_are_in_plain_english():
    assert not (found := found_in_pages(pages())), "\n" + "\n".join(found)


def test_help_logs_errors_and_docstrings_are_in_plain_english():
    assert not (found := found_in_modules(modules())), "\n" + "\n".join(dict.fromkeys(found))


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ('"""A watcher hears of it."""', 1),
        ("def f():\n    raise ValueError(f'{x} is wrong: at most 3 will do')", 2),
        ("log.warning('nobody listens there', x=1)", 1),
        ("x = variable('a', text,\n  'wait for ever')", 2),
        ("class A:\n    b: int\n    '''What somebody\n    wants.'''", 3),
    ],
)
def test_a_phrase_is_found_wherever_people_read_it(source, line):
    (found,) = dict.fromkeys(each for at, text in texts_of(source) for each in findings("m.py", at, text))
    assert found.startswith(f"m.py:{line}: ")
    assert ": write " in found


def test_code_and_output_in_a_page_are_quoted_and_names_in_code_are_free(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Use it.\n\n```\nnobody\n```\n\n    somebody\n\nSay `nobody`.\n\nNobody reads this.\n")
    assert [*findings("page.md", 1, prose_of(page))] == ["page.md:11: 'Nobody': write no component; nothing; no one"]
    assert [*texts_of("nobody = somebody(1)\nx = {'nobody': 2}")] == []


def test_what_is_not_yet_changed_exists():
    assert [each for each in NOT_YET if not (ROOT / each).exists()] == []

"""Label templates: the part of Go's text/template that selectors can use, over a map of labels.

``{{.key}}``, ``{{index . "key"}}``, pipelines, ``{{if}}``, ``{{with}}``, comments, trimming (``{{-``, ``-}}``) and the
functions of `template_functions`. A template that does not compile (variables, ``{{range}}``, ``{{define}}``, numbers
that are not whole) or fails when rendered is taken literally. So is one that is longer than
`MOST_TEXT`, is nested deeper than `DEEPEST`, or produces more than `MOST_OUTPUT` anywhere: each action is rendered at
most once, so these limits bound the work too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from .template_functions import FUNCTIONS, LAZY, MOST_OUTPUT, TemplateError, Value, bounded, shown, truth, unquoted

MOST_TEXT = 1_024
"""The longest template, in characters."""
DEEPEST = 64
"""The deepest nesting of conditions and parentheses."""
NO_VALUE = "<no value>"
"""The output for a missing field."""

Template = Callable[[Mapping[str, Any]], str]
Functions = tuple[tuple[str, Callable[..., Value]], ...]
"""Functions that a template may call besides those of `template_functions`, by name."""
Expression = Callable[[Value, Value], Value]
"""Computes a value from ``.`` and ``$``."""
Block = Callable[[Value, Value], str]

_SPACE = " \t\r\n"
_OPEN = re.compile(r"\{\{(?P<trim>-[ \t\r\n])?(?P<comment>/\*.*?\*/(?P<right>[ \t\r\n]-)?\}\})?", re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<close>(?P<trim>[ \t\r\n]-)?\}\})
    |(?P<space>[ \t\r\n]+(?!-\}\}))
    |(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    |(?P<number>[+-]?(?:0|[1-9][0-9]{0,17})(?![\w.]))
    |(?P<bar>\|)|(?P<left>\()|(?P<right>\))
    |(?:(?P<field>\.(?!\d)\w+)|(?P<dot>\.)|(?P<root>\$)|(?P<word>[^\W\d]\w*))(?=[ \t\r\n.,|:()]|\}\}|$)""",
    re.VERBOSE,
)
_KEYWORDS = {"block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"}


@lru_cache(maxsize=1024)
def compile_template(text: str, more: Functions = ()) -> Template | None:
    """The template, compiled and cached; None if it has no action or does not compile."""
    if len(text) > MOST_TEXT or "{{" not in text:
        return None
    try:
        block = _Parser(_tokens(text), {**FUNCTIONS, **dict(more)}).whole()
    except TemplateError:
        return None

    def render(values: Mapping[str, Any]) -> str:
        try:
            return block(values, values)
        except TemplateError:
            return text

    return render


def _tokens(text: str) -> list[tuple[str, str]]:
    """Kind and text of each token; text between actions is a token of kind `text`."""
    tokens, position, trim = [], 0, False
    while (opening := _OPEN.search(text, position)) is not None:
        tokens.append(("text", _trimmed(text[position : opening.start()], trim, opening["trim"] is not None)))
        position, trim = opening.end(), opening["right"] is not None
        if opening["comment"] is None:
            position, trim = _action(text, position, tokens)
    tokens.append(("text", _trimmed(text[position:], trim, False)))
    return tokens


def _action(text: str, position: int, tokens: list[tuple[str, str]]) -> tuple[int, bool]:
    while (token := _TOKEN.match(text, position)) is not None:
        position = token.end()
        kind = next(name for name, value in token.groupdict().items() if value is not None and name != "trim")
        tokens.append((token["word"] if token["word"] in _KEYWORDS else kind, token[kind]))
        if kind == "close":
            return position, token["trim"] is not None
    raise TemplateError("an action is not closed, or has an unexpected character")


def _trimmed(text: str, left: bool, right: bool) -> str:
    text = text.lstrip(_SPACE) if left else text
    return text.rstrip(_SPACE) if right else text


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: Sequence[tuple[str, str]], functions: Mapping[str, Callable[..., Value]]) -> None:
        self._functions = functions
        self._tokens, self._next, self._depth = tokens, 0, 0

    def whole(self) -> Block:
        """The template, up to the last token."""
        block = self._block()
        if self._next < len(self._tokens):
            raise TemplateError("an else or end without its if")
        return block

    def _peek(self) -> str:
        return self._tokens[self._next][0] if self._next < len(self._tokens) else "eof"

    def _take(self, *kinds: str) -> str | None:
        """The next token's text, if it is of one of these kinds."""
        if self._peek() not in kinds:
            return None
        self._next += 1
        return self._tokens[self._next - 1][1]

    def _need(self, kind: str) -> None:
        self._take("space")
        if self._take(kind) is None:
            raise TemplateError(f"expected {kind}")

    def _block(self) -> Block:
        """Text and actions up to an ``else`` or ``end`` (whose keyword is taken) or the end."""
        parts: list[Block] = []
        while self._peek() != "eof":
            if (text := self._take("text")) is not None:
                parts += [_text(text)] if text else []
                continue
            self._take("space")
            if self._peek() in {"else", "end"}:
                break
            parts.append(self._control() if self._peek() in {"if", "with"} else self._output())
        return parts[0] if len(parts) == 1 else lambda dot, root: _joined(parts, dot, root)

    def _output(self) -> Block:
        value = self._pipeline()
        self._need("close")

        def output(dot: Value, root: Value) -> str:
            found = value(dot, root)
            return bounded(found) if isinstance(found, str) else NO_VALUE if found is None else shown(found)

        return output

    def _control(self) -> Block:
        """An ``if`` or ``with``; an ``else if`` is one that is nested and shares its end."""
        is_with = self._take("if", "with") == "with"
        with self._deeper():
            value = self._pipeline()
            self._need("close")
            then = self._block()
            otherwise: Block = _nothing
            if self._take("else") is not None:
                self._take("space")
                if self._peek() in {"if", "with"}:
                    otherwise = self._control()
                    return lambda dot, root: _choose(value, then, otherwise, is_with, dot, root)
                self._need("close")
                otherwise = self._block()
            self._need("end")
            self._need("close")
        return lambda dot, root: _choose(value, then, otherwise, is_with, dot, root)

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        if self._depth == DEEPEST:
            raise TemplateError("it is nested too deeply")
        self._depth += 1
        yield
        self._depth -= 1

    def _pipeline(self) -> Expression:
        stages = [self._command(is_first=True)]
        while self._take("bar") is not None:
            stages.append(self._command(is_first=False))

        def value(dot: Value, root: Value) -> Value:
            found = stages[0](dot, root)
            for stage in stages[1:]:
                found = stage(dot, root, found)
            return found

        return value if len(stages) > 1 else stages[0]

    def _command(self, *, is_first: bool) -> Callable[..., Value]:
        """Computes a value from ``.``, ``$`` and, except for the first command of a pipeline, the previous result."""
        self._take("space")
        kind, name = self._tokens[self._next] if self._peek() != "eof" else ("eof", "")
        operands = [self._operand()]
        while self._take("space") is not None and self._peek() not in {"bar", "right", "close"}:
            operands.append(self._operand())
        if self._peek() not in {"bar", "right", "close"}:
            raise TemplateError("operands must be separated by spaces")
        if kind == "word" and (function := self._functions.get(name)) is not None:
            return lambda dot, root, *given: _call(name, function, operands[1:], dot, root, given)
        if not (is_first or kind in {"field", "root", "left"}):
            raise TemplateError(f"{name} is not a command")

        if is_first and name != "nil" and len(operands) == 1:
            return operands[0]
        return _no_function

    def _operand(self) -> Expression:
        value = self._term()
        while (field := self._take("field")) is not None:
            value = _field(value, field[1:])
        return value

    def _term(self) -> Expression:
        kind, text = self._peek(), ""
        if kind != "eof":
            text = self._tokens[self._next][1]
            self._next += 1
        if kind == "field":
            return _label(text[1:])
        if kind in {"dot", "root", "string", "number", "word"} and self._peek() == "field" and kind != "root":
            raise TemplateError(f"{text} has no fields")
        if kind == "left":
            with self._deeper():
                value = self._pipeline()
                self._need("right")
            return value
        if kind in {"dot", "root"}:
            return _dot if kind == "dot" else _root
        if kind == "word" and (function := self._functions.get(text)) is not None:
            return lambda dot, root: _call(text, function, [], dot, root, ())
        return _constant(kind, text)


def _constant(kind: str, text: str) -> Expression:
    if kind == "string":
        value: Value = unquoted(text)
    elif kind == "number":
        value = int(text)
    elif kind == "word" and text in _WORDS:
        value = _WORDS[text]
    else:
        raise TemplateError(f"{text!r} is unexpected here")
    return lambda dot, root: value


_WORDS: dict[str, Value] = {"true": True, "false": False, "nil": None}


def _dot(dot: Value, root: Value) -> Value:
    return dot


def _root(dot: Value, root: Value) -> Value:
    return root


def _joined(parts: Sequence[Block], dot: Value, root: Value) -> str:
    texts: list[str] = []
    left = MOST_OUTPUT
    for part in parts:
        texts.append(part(dot, root))
        left -= len(texts[-1])
        if left < 0:
            raise TemplateError("it produces too much text")
    return "".join(texts)


def _nothing(dot: Value, root: Value) -> str:
    return ""


def _text(text: str) -> Block:
    return lambda dot, root: text


def _no_function(dot: Value, root: Value, *given: Value) -> Value:
    raise TemplateError("only functions take arguments, and nil is not a value")


def _label(key: str) -> Expression:
    def value(dot: Value, root: Value) -> Value:
        if not isinstance(dot, Mapping):
            raise TemplateError(f"{shown(dot)} has no field {key}")
        return dot.get(key)

    return value


def _field(of: Expression, key: str) -> Expression:
    def value(dot: Value, root: Value) -> Value:
        labels = of(dot, root)
        return None if labels is None else label(labels, root)

    label = _label(key)
    return value


def _choose(value: Expression, then: Block, otherwise: Block, is_with: bool, dot: Value, root: Value) -> str:
    found = value(dot, root)
    if not truth(found):
        return otherwise(dot, root)
    return then(found if is_with else dot, root)


def _call(
    name: str,
    function: Callable[..., Value],
    arguments: Sequence[Expression],
    dot: Value,
    root: Value,
    given: Sequence[Value],
) -> Value:
    """Call a function; the previous result of the pipeline is its last argument."""
    if name in LAZY:
        return _first_that_decides(LAZY[name], arguments, dot, root, given)
    values = [*(argument(dot, root) for argument in arguments), *given]
    if sum(len(value) for value in values if isinstance(value, str)) > MOST_OUTPUT:
        raise TemplateError(f"{name} is called with too much text")
    try:
        found = function(*values)
    except TypeError:
        raise TemplateError(f"{name} cannot be called with {len(values)} values") from None
    return bounded(found) if isinstance(found, str) else found


def _first_that_decides(
    decides: bool, arguments: Sequence[Expression], dot: Value, root: Value, given: Sequence[Value]
) -> Value:
    if not arguments and not given:
        raise TemplateError("and, or need a value")
    value: Value = None
    for argument in arguments:
        value = argument(dot, root)
        if truth(value) == decides:
            return value
    return given[0] if given else value

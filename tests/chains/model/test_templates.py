"""What label templates render as, next to what Go's text/template makes of them."""

import pytest

from nsm.chains.model.templates import compile_template

LABELS = {"app": "a", "nodeName": "node-1", "zone": "", "a-b": "dashed"}


def rendered(text):
    template = compile_template(text)
    return text if template is None else template(LABELS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{.app}}", "a"),
        ("x-{{ .nodeName }}-{{.app}}", "x-node-1-a"),
        ("{{.missing}}", "<no value>"),
        ("{{.missing.deeper}}", "<no value>"),
        ('{{index . "a-b"}}{{index . "missing"}}', "dashed"),
        ("{{$.app}}", "a"),
        ("a {{- .app -}} \n b", "aab"),
        ("{{- /* why */ -}} x", "x"),
        ('{{"\\u00e9\\x61\\141\\n"}}{{`\\n`}}', "éaa\n\\n"),
        ("{{.app}}}}", "a}}"),
        ("{{-1}} {{true}}", "-1 true"),
        ("{{.}}", "map[a-b:dashed app:a nodeName:node-1 zone:]"),
    ],
)
def test_values_and_text(text, expected):
    assert rendered(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{{if eq .app "a" "b"}}yes{{else}}no{{end}}', "yes"),
        ('{{if eq .missing "a"}}yes{{end}}', ""),
        ('{{if and (ne .app "b") (not .zone)}}yes{{end}}', "yes"),
        ("{{if .zone}}z{{else if .missing}}m{{else if .app}}a{{else}}n{{end}}", "a"),
        ("{{with .zone}}{{.}}{{else with .app}}{{.}}{{$.nodeName}}{{end}}", "anode-1"),
        ('{{or .zone .missing "fallback"}}', "fallback"),
        ('{{if gt (len .nodeName) 5}}long{{end}}{{if lt .app "b"}}low{{end}}', "longlow"),
    ],
)
def test_conditions(text, expected):
    assert rendered(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{{.app | printf "x-%s"}}', "x-a"),
        ('{{printf "%s-%v%%" .app .nodeName | len}}', "9"),
        ('{{printf "%s" .missing}}', "%!s(<nil>)"),
        ('{{printf "%s"}}{{printf "x" .app}}', "%!s(MISSING)x%!(EXTRA string=a)"),
        ("{{print .app 1 2 .missing}}", "a1 2 <nil>"),
    ],
)
def test_pipelines(text, expected):
    assert rendered(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{{.broken",
        "{{}}",
        "{{end}}",
        "{{if .app}}no end",
        "{{.app.deeper}}",
        "{{.a-b}}",
        '{{.app "x"}}',
        "{{nil}}",
        '{{"\\q"}}',
        "{{unknown .app}}",
        "{{eq .app 1}}",
        "{{eq}}",
        "{{ /* a space before it */ }}",
        "{{.app}}{{",
        "{{range .}}{{.}}{{end}}",
        "{{$x := .app}}{{$x}}",
        "{{" + "(" * 5000 + ".app" + ")" * 5000 + "}}",
    ],
)
def test_what_does_not_compile_or_fails_stands_for_itself(text):
    assert rendered(text) == text


def test_what_is_not_reached_does_not_fail():
    assert rendered("{{if .zone}}{{eq .app 1}}{{else}}fine{{end}}{{or .app (eq .app 1)}}") == "finea"

"""Selectors with templates, as anybody who registers a service may write them."""

import time
import tracemalloc

import pytest

from nsm.apis.registry import Destination, Match, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.model.matching import is_subset, match_endpoints
from nsm.chains.model.template_functions import MOST_OUTPUT
from nsm.chains.model.templates import DEEPEST, MOST_TEXT, compile_template

LABELS = {f"l{number}": "x" * 1_000 for number in range(64)}


def nested(opening, inside, closing, times):
    return opening * times + inside + closing * times


ATTACKS = {
    "doubled by with": nested('{{with printf "%s%s" . .}}', "{{.}}", "{{end}}", 29).replace(". .", ".l1 .l1", 1),
    "doubled by a pipeline": "{{.l1 | " + 'printf "%[1]s%[1]s" | ' * 30 + "print}}",
    "doubled by print": "{{with .l1}}" + nested("{{with print . .}}", "{{.}}", "{{end}}", 38) + "{{end}}",
    "doubled by println": "{{with .l1}}" + nested("{{with println . .}}", "{{.}}", "{{end}}", 36) + "{{end}}",
    "a wide verb": '{{printf "%1000000000d" 1}}',
    "a precise verb": '{{printf "%.1000000000s" "a"}}',
    "a format of all arguments": '{{printf "' + "%v" * 100 + '"' + " ." * 100 + "}}",
    "all labels again and again": "{{.}}" * 200,
    "one label again and again": "{{.l1}}" * 140,
    "all labels printed": "{{print" + " ." * 400 + "}}",
    "parentheses": "{{" + "(" * 500 + ".l1" + ")" * 500 + "}}",
    "conditions": nested("{{if .l1}}", "x", "{{end}}", 56),
    "conditions in conditions": "{{if .l1}}a{{else " * 40 + "{{end}}",
    "comments": "{{/*" * 250,
    "longer than all": "{{.l1}}" + " " * 1_000_000,
    "open": "{{" * 500_000,
    "a long number": "{{eq 1 " + "9" * 900 + "}}",
    "ranges": "{{range .}}" * 50 + "{{end}}" * 50,
    "definitions": '{{define "a"}}{{template "a"}}{{template "a"}}{{end}}{{template "a"}}',
}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_template_costs_little_whatever_it_says(text):
    compile_template.cache_clear()
    tracemalloc.start()
    began = time.process_time()
    for _ in range(10):
        assert not is_subset({"a": "b"}, {"a": text}, LABELS)
    taken, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 1, "for ten times, and traced"
    assert peak < 4_000_000


def test_a_template_that_comes_to_too_much_stands_for_itself():
    for text in ("{{.l1}}" * 5, '{{printf "%s%s%s%s%s" .l1 .l1 .l1 .l1 .l1}}', "{{.}}"):
        template = compile_template(text)
        assert template is None or template(LABELS) == text
    assert len(compile_template("{{.l1}}" * 4)(LABELS)) <= MOST_OUTPUT


def test_what_people_write_is_rendered():
    chain = "{{if eq .a `0`}}0" + "".join(f"{{{{else if eq .a `{number}`}}}}{number}" for number in range(1, 30))
    assert len(chain) < MOST_TEXT
    assert compile_template(chain + "{{end}}")({"a": "29"}) == "29"
    deep = nested("{{if .a}}", "x", "{{end}}", DEEPEST - 1)
    assert compile_template(deep)({"a": "1"}) == "x"


def test_a_selector_is_rendered_once_for_all_endpoints():
    """A service with many destinations and templates, and as many endpoints as one client may have."""
    text = '{{if .a}}{{printf "%s-%s" .a .a}}{{end}}' * 12
    routes = [Destination(destination_selector={"a": text, "b": text}) for _ in range(64)]
    service = NetworkService(name="svc", matches=[Match(routes=routes)])
    has = {"svc": NetworkServiceLabels(labels={"a": "b", "b": "c"})}
    endpoints = [NetworkServiceEndpoint(name=f"{number}", network_service_labels=has) for number in range(1_000)]
    began = time.process_time()
    assert match_endpoints({"a": "x"}, service, endpoints) == []
    assert time.process_time() - began < 0.5

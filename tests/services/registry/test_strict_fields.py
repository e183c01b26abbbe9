"""The policy by which an API server rejects misspelt fields knows the fields that the registry knows."""

import re

import pytest
import yaml

from nsm.services.registry.custom_resources.objects import SERVICE_FORM
from tests.docs.pages import ROOT
from tests.services.registry.nonsense import SERVICE

POLICY, BINDING = yaml.safe_load_all((ROOT / "k8s/strict-fields/networkservices.yaml").read_text())
MATCH = SERVICE["matches"][0]


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("the spec", SERVICE_FORM.fields),
        ("a match", MATCH),
        ("a route", MATCH["routes"][0]),
        ("the metadata of a match", MATCH["metadata"]),
    ],
)
def test_the_fields_that_are_accepted_are_those_of_a_record_and_the_message_names_them(what, fields):
    (found,) = [each for each in POLICY["spec"]["validations"] if each["message"].startswith(f"{what} has a field")]
    assert set(re.findall(r"'(\w+)'", found["expression"])) == set(fields)
    _, _, named = found["message"].partition(" that is not ")
    assert set(named.removeprefix("one of ").split(", ")) == set(fields)


def test_the_policy_is_in_force_and_an_expression_that_fails_rejects_nothing():
    assert BINDING["spec"] == {"policyName": POLICY["metadata"]["name"], "validationActions": ["Deny"]}
    assert POLICY["spec"]["failurePolicy"] == "Ignore"

"""Rules as transactions of nftables."""

import json

import pytest

from nsm.services.nse_firewall.rules import read_rules
from nsm.services.nse_firewall.ruleset import counter_of, counters_of, transaction


def rules(text):
    return read_rules(text, "r")


def made(text, *, tracked=("inet",), **options):
    return transaction(rules(text), tracked=tracked, **options)


def of_chain(commands, family, chain):
    found = [command["add"]["rule"] for command in commands if "rule" in command.get("add", {})]
    return [each for each in found if (each["family"], each["chain"]) == (family, chain)]


def commented(commands, family, chain):
    return [json.dumps(each["expr"]) for each in of_chain(commands, family, chain) if "comment" in each]


WEB = "rules:\n  - {name: web, action: allow, protocol: tcp, ports: [8080]}"


def test_a_new_connection_is_decided_in_its_direction_and_its_answers_by_the_kernels_tracking():
    commands = made(WEB)
    assert len(commented(commands, "inet", "to_service")) == 1
    assert commented(commands, "inet", "to_client") == []
    first = of_chain(commands, "inet", "to_client")[0]["expr"]
    assert first[0]["match"]["right"] == ["established", "related"]
    assert {"accept": None} in first


def test_without_tracking_answers_are_no_new_connections():
    (answer,) = commented(made(WEB), "bridge", "to_client")
    assert '"sport"' in answer
    assert '"dport"' not in answer
    assert '"op": "!=", "left": {"&"' in answer


def test_upstreams_rules_concern_both_directions():
    text = "web:\n  ispermit: 1\n  proto: 6\n  dstportoricmpcodefirst: 80\n  dstportoricmpcodelast: 80\n  srcportoricmptypelast: 65535"
    for family in ("bridge", "inet"):
        (to_service,) = commented(made(text), family, "to_service")
        (to_client,) = commented(made(text), family, "to_client")
        assert '"dport"' in to_service
        assert '"sport"' in to_client


@pytest.mark.parametrize(("default", "verdict"), [("deny", "drop"), ("allow", "accept")])
def test_what_no_rule_concerns_is_counted_and_decided_last(default, verdict):
    for chain in ("to_service", "to_client"):
        last = of_chain(made(f"default: {default}"), "inet", chain)[-1]
        assert last["expr"] == [{"counter": "others"}, {verdict: None}]


def test_addresses_of_both_versions_become_rules_of_their_own_and_contained_ones_are_left_out():
    text = "rules:\n  - {name: a, action: deny, from: [10.0.0.0/8, 10.1.0.0/16, 'fd00::/8']}"
    four, six = commented(made(text), "inet", "to_service")
    assert four.count("prefix") == 1
    assert '"protocol": "ip6"' in six


def test_counters_of_rules_that_stay_are_kept_and_those_of_others_are_removed():
    former = counters_of(rules("rules:\n  - {name: web, action: deny}\n  - {name: old one, action: deny}"))
    commands = made(WEB, former=former)
    deleted = [command["delete"]["counter"]["name"] for command in commands if "counter" in command.get("delete", {})]
    assert deleted == [counter_of("old one")] * 2
    assert not any("table" in command.get("delete", {}) for command in commands)


def test_the_first_transaction_replaces_what_an_earlier_process_left():
    commands = made(WEB, is_first=True)
    assert [command["delete"]["table"]["family"] for command in commands if "delete" in command] == ["bridge", "inet"]


def test_names_that_look_alike_have_counters_of_their_own():
    assert len({counter_of(name) for name in ("a b", "a-b", "a_b", "a  b")}) == 4

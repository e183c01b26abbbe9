"""How an operator names a wire."""

from dataclasses import dataclass

import pytest

from nsm.operate.errors import UsageError
from nsm.operate.naming import find_wire, name_of


@dataclass
class Wire:
    id: str
    client: str = ""
    interface: str = ""


ALICE_0, ALICE_1 = Wire("a1b2", "alice", "nsm-1"), Wire("a1c3", "alice", "nsm-2")
BOB, MEMIF = Wire("ff00", "bob", "nsm-1"), Wire("0042", "vpp", "")
WIRES = [ALICE_0, ALICE_1, BOB, MEMIF]


@pytest.mark.parametrize(
    ("word", "wire"),
    [
        ("alice/nsm-1", ALICE_0),
        ("a1c3", ALICE_1),
        ("a1c", ALICE_1),
        ("bob", BOB),
        ("bo", BOB),
        ("vpp", MEMIF),
        ("00", MEMIF),
    ],
)
def test_a_wire_is_found_by_what_names_it(word, wire):
    assert find_wire(WIRES, word) is wire


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("a1", "'a1' names 2 wires: alice/nsm-1, alice/nsm-2"),
        ("alice", "'alice' names 2 wires: alice/nsm-1, alice/nsm-2"),
        ("bobb/nsm-1", "there is no wire 'bobb/nsm-1'; did you mean bob/nsm-1?"),
        ("zzzzzz", "there is no wire 'zzzzzz'; there are alice/nsm-1, alice/nsm-2, bob/nsm-1, 0042"),
        ("", "there is no wire ''; there are"),
    ],
)
def test_a_word_that_names_no_single_wire_gets_the_names_that_would(word, said):
    with pytest.raises(UsageError) as raised:
        find_wire(WIRES, word)
    assert str(raised.value).startswith(said)


def test_wires_of_the_same_name_are_told_apart_by_their_ids():
    with pytest.raises(UsageError, match="'bob/nsm-1' names 2 wires: ff00, ee00"):
        find_wire([BOB, Wire("ee00", "bob", "nsm-1")], "bob/nsm-1")


def test_a_mesh_without_wires_is_said_to_have_none():
    with pytest.raises(UsageError, match="the mesh has none"):
        find_wire([], "alice/nsm-1")


def test_a_wire_without_an_interface_is_called_by_its_id():
    assert [name_of(wire) for wire in (BOB, MEMIF)] == ["bob/nsm-1", "0042"]

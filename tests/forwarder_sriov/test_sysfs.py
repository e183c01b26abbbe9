"""PCI functions, in a tree like the kernel's."""

import pytest

from nsm.chains.core import Conflict, InvalidRequest
from nsm.forwarder_sriov.configuration import Card
from nsm.forwarder_sriov.sysfs import Pci, await_file
from tests.forwarder_sriov.tree import CARD, Tree


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "pci")


def test_functions_are_numbered_as_the_kernel_numbers_them_beyond_the_tenth(tree):
    """In the order of their names virtfn10 would come before virtfn2, and get its MAC and VLAN."""
    functions = tree.pci.functions(tree.card(functions=13))
    assert [each.number for each in functions] == list(range(13))
    assert [each.address for each in functions][8:11] == ["0000:3b:11.0", "0000:3b:11.1", "0000:3b:11.2"]
    assert functions[12].group == "3b12"


def test_all_functions_are_created_if_there_are_none(tree):
    card = tree.card(functions=7, made=False)
    tree.pci.functions(card)
    assert (tree.devices / CARD / "sriov_numvfs").read_text() == "7"


def test_a_number_of_functions_that_an_administrator_chose_stays(tree):
    card = tree.card(functions=4)
    (tree.devices / CARD / "sriov_totalvfs").write_text("63\n")
    tree.pci.functions(card)
    assert (tree.devices / CARD / "sriov_numvfs").read_text() == "4\n"


def test_an_address_that_is_no_function_is_named(tree):
    with pytest.raises(InvalidRequest, match="there is no PCI function 0000:3b:00.0 on this node"):
        tree.pci.functions(Card(CARD, "igb", "igbvf", ("a/b",)))


def test_a_function_that_cannot_have_virtual_ones_is_named(tree):
    tree.function(CARD, "igb", "1", "eth0")
    with pytest.raises(InvalidRequest, match="0000:3b:00.0 cannot have virtual functions"):
        tree.pci.functions(Card(CARD, "igb", "igbvf", ("a/b",)))


def test_a_listed_function_that_is_not_the_cards_is_named(tree):
    card = tree.card()
    with pytest.raises(InvalidRequest, match="0000:99:10.0 is not a virtual function of 0000:3b:00.0"):
        tree.pci.functions(Card(CARD, "igb", "igbvf", ("a/b",), frozenset({"0000:99:10.0"})))
    only = Card(card.address, "igb", "igbvf", card.names, frozenset({"0000:3b:10.2"}))
    assert [each.number for each in tree.pci.functions(only)] == [2]


def test_a_function_is_given_to_vfio_which_does_not_know_its_kind(tree):
    """By driver_override: without it the driver would have to be told of each kind of device before."""
    address = tree.pci.functions(tree.card())[1].address
    tree.pci.bind(address, "vfio-pci")
    assert tree.pci.driver(address) == "vfio-pci"
    assert (tree.devices / address / "driver_override").read_text() == "\n"
    assert tree.pci.interface(address) == ""
    tree.pci.bind(address, "igbvf")
    assert tree.pci.await_interface(address) == "eth1"


def test_a_driver_that_the_kernel_does_not_have_is_named(tree):
    (function, *_) = tree.pci.functions(tree.card())
    with pytest.raises(Conflict, match="the kernel has no driver iavf for 0000:3b:10.0; load it"):
        tree.pci.bind(function.address, "iavf")


def test_a_driver_that_refuses_a_function_is_named(tree):
    (function, *_) = tree.pci.functions(tree.card())
    plain = Pci(str(tree.devices), str(tree.drivers))
    (tree.drivers / "vfio-pci" / "bind").mkdir()
    with pytest.raises(Conflict, match="0000:3b:10.0 cannot be given to the driver vfio-pci: Is a directory"):
        plain.bind(function.address, "vfio-pci")


def test_what_else_is_in_a_group_is_known_and_harmless_drivers_are_not_counted(tree):
    (function, *_) = tree.pci.functions(tree.card(group="7"))
    tree.function("0000:00:1f.6", "e1000e", "7")
    tree.function("0000:00:01.0", "pcieport", "7")
    tree.function("0000:00:1f.0", "", "7")
    assert tree.pci.others_in_use(function.address, {CARD, *(f"0000:3b:10.{n}" for n in range(4))}) == [
        "0000:00:1f.6 (e1000e)"
    ]


def test_a_group_that_cannot_be_read_is_not_taken_for_an_empty_one(tree):
    (function, *_) = tree.pci.functions(tree.card())
    (tree.devices / function.address / "iommu_group").unlink()
    with pytest.raises(Conflict, match="cannot read what is in the IOMMU group of 0000:3b:10.0"):
        tree.pci.others_in_use(function.address, set())


def test_a_driver_that_makes_no_interface_is_named(tree, monkeypatch):
    monkeypatch.setattr("nsm.forwarder_sriov.sysfs._READY", 0.02)
    (function, *_) = tree.pci.functions(tree.card())
    (tree.devices / function.address / "net" / "eth0v0").rmdir()
    with pytest.raises(Conflict, match="the driver 'igbvf' of 0000:3b:10.0 shows no network interface"):
        tree.pci.await_interface(function.address)
    with pytest.raises(Conflict, match=r"there is no .*/9: is the folder"):
        await_file(tree.vfio / "9")


def test_a_function_with_two_interfaces_is_not_guessed_at(tree):
    (function, *_) = tree.pci.functions(tree.card())
    (tree.devices / function.address / "net" / "eth9").mkdir()
    with pytest.raises(Conflict, match="has the interfaces eth0v0, eth9; expected one"):
        tree.pci.interface(function.address)

"""The file that names a node's network cards."""

import pytest

from nsm.forwarder_sriov.configuration import Card, cards_from, full_address

CARD = """\
    pfKernelDriver: igb
    vfKernelDriver: igbvf
    capabilities: [10G, intel]
    serviceDomains: [worker.domain]
"""
FILE = f"physicalFunctions:\n  0000:3b:00.0:\n{CARD}"


@pytest.fixture
def read(tmp_path):
    def read(text):
        file = tmp_path / "sriov.config"
        file.write_text(text)
        return cards_from(str(file))

    return read


def test_a_card_is_offered_by_each_domain_with_each_capability(read):
    assert read(FILE) == (Card("0000:3b:00.0", "igb", "igbvf", ("worker.domain/10G", "worker.domain/intel")),)


def test_a_node_without_cards_says_so(read):
    """Its forwarder is there for endpoints, whose side needs nothing."""
    assert read("physicalFunctions: {}") == ()


def test_an_address_without_its_domain_is_the_one_in_the_first_domain(read):
    """Upstream accepts it, and then does not find the card."""
    assert read(FILE.replace("0000:3b", "3b"))[0].address == "0000:3b:00.0"
    assert full_address("10000:01:00.7") == "10000:01:00.7"


def test_listed_functions_are_the_only_ones_that_are_used(read):
    more = "    virtualFunctions: [{address: 0000:3b:10.0, iommuGroup: 7}, {address: '3b:10.2'}]\n"
    assert read(FILE + more)[0].only == {"0000:3b:10.0", "0000:3b:10.2"}


@pytest.mark.parametrize("field", ["pfKernelDriver", "vfKernelDriver", "capabilities", "serviceDomains"])
def test_a_field_that_is_missing_is_named_with_its_card(read, field):
    without = "".join(line for line in FILE.splitlines(keepends=True) if field not in line)
    with pytest.raises(ValueError, match=rf"^physicalFunctions\.0000:3b:00\.0\.{field} is missing"):
        read(without)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("physicalFunctions:", "physicalFunctions is missing"),
        ("", "physicalFunctions is missing|expected an object"),
        ("physicalFunctions: [", "in line 2, column 1"),
        (FILE.replace("0000:3b:00.0", "eth0"), "'eth0' is not a PCI address; expected one such as 0000:3b:00.0"),
        (FILE.replace("0000:3b:00.0", "0000:3B:00.0"), "'0000:3B:00.0' is not a PCI address"),
        (FILE + f"  3b:00.0:\n{CARD}", "physicalFunctions has 0000:3b:00.0 twice"),
        (FILE.replace("igbvf", "../igb"), "vfKernelDriver is '../igb'; expected a kernel driver"),
        (FILE.replace("[worker.domain]", "[Worker]"), r"serviceDomains\[0\] is 'Worker'; expected a DNS name"),
        (FILE.replace("10G,", "10 G,"), r"capabilities\[0\] is '10 G'; expected a name, such as 10G"),
        (FILE.replace("capabilities: [10G, intel]", "capabilities: []"), "capabilities is missing or empty"),
        (FILE.replace("vfKernelDriver", "vfKernelDrivers"), "vfKernelDrivers is not a field of a physical function"),
        (FILE + "    virtualFunctions: [{address: here}]\n", "address is 'here'; expected a PCI address"),
    ],
)
def test_a_fault_is_named_with_what_to_write(read, text, told):
    with pytest.raises(ValueError, match=told):
        read(text)


def test_a_file_that_is_not_there_says_so():
    with pytest.raises(ValueError, match="cannot read it: No such file"):
        cards_from("/nowhere")

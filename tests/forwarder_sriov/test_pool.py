"""Which virtual function a connection gets."""

import asyncio

import pytest

from nsm.chains.core import Conflict, Exhausted, Refused
from nsm.forwarder_sriov.sysfs import VFIO_DRIVER
from nsm.forwarder_sriov.tokens import State
from tests.forwarder_sriov.tree import Tree, given

NAME, OTHER = "worker.domain/10G", "worker.domain/intel"
SECOND = "0000:5e:00.0"


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "pci")


async def test_the_card_with_more_free_functions_is_taken_then_the_lower_address(tree):
    pool, tokens = tree.pool(tree.card(functions=2), tree.card(SECOND, functions=3, name="eth1"))
    taken = [(await pool.take(str(n), given(tokens, NAME), by_vfio=False)).function.address for n in range(5)]
    assert taken == ["0000:5e:10.0", "0000:3b:10.0", "0000:5e:10.1", "0000:3b:10.1", "0000:5e:10.2"]


async def test_a_card_without_the_tokens_name_is_not_taken(tree):
    pool, tokens = tree.pool(tree.card(), tree.card(SECOND, functions=7, name="eth1", names=(OTHER,)))
    assert (await pool.take("c", given(tokens, NAME), by_vfio=False)).function.card.address != SECOND


async def test_a_card_is_left_to_the_name_that_no_other_has(tree):
    pool, tokens = tree.pool(tree.card(functions=1, names=(NAME, OTHER)), tree.card(SECOND, functions=1, name="eth1"))
    one, other = given(tokens, NAME), given(tokens, OTHER)
    assert (await pool.take("one", one, by_vfio=False)).function.card.address == SECOND
    assert (await pool.take("other", other, by_vfio=False)).function.card.address != SECOND


async def test_a_function_of_which_vfio_has_another_of_its_group_is_not_given_to_the_kernel(tree):
    pool, tokens = tree.pool(tree.card(functions=2, group="7", names=(NAME,)))
    tree.function("0000:3b:00.1", "", "7")
    tree.bind("0000:3b:00.0", VFIO_DRIVER)
    one, other = given(tokens, NAME, 2)
    await pool.take("one", one, by_vfio=True)
    assert tree.drivers_of(0, 1) == [VFIO_DRIVER, VFIO_DRIVER]
    with pytest.raises(Exhausted, match="for KERNEL: others of their IOMMU groups are used otherwise"):
        await pool.take("other", other, by_vfio=False)
    assert tokens.state(other) is State.ALLOCATED
    assert (await pool.take("other", other, by_vfio=True)).function.number == 1


async def test_a_function_goes_back_to_the_kernels_driver_for_the_next_pod(tree):
    pool, tokens = tree.pool(tree.card(functions=1))
    token = given(tokens, NAME)
    pool.give_back(await pool.take("one", token, by_vfio=True))
    assert tree.drivers_of(0) == [VFIO_DRIVER]
    await pool.take("two", token, by_vfio=False)
    assert tree.drivers_of(0) == ["igbvf"]
    assert tree.pci.bound == [("0000:3b:10.0", VFIO_DRIVER), ("0000:3b:10.0", "igbvf")]


async def test_a_group_that_is_shared_with_a_card_in_use_is_not_given_to_vfio(tree):
    """Its driver would be taken from under the node's own connections."""
    pool, tokens = tree.pool(tree.card(functions=2, group="7"))
    token = given(tokens, NAME)
    with pytest.raises(Conflict, match=r"IOMMU group 7 of 0000:3b:10.0 is shared with 0000:3b:00.0 \(igb\), in use"):
        await pool.take("one", token, by_vfio=True)
    assert tree.drivers_of(0, 1) == ["igbvf", "igbvf"]
    assert tokens.state(token) is State.ALLOCATED
    await pool.take("one", token, by_vfio=False)


async def test_without_an_iommu_there_is_no_vfio(tree):
    card = tree.card(functions=1)
    (tree.devices / "0000:3b:10.0" / "iommu_group").unlink()
    pool, tokens = tree.pool(card)
    with pytest.raises(Exhausted, match="for VFIO: this node has no IOMMU"):
        await pool.take("one", given(tokens, NAME), by_vfio=True)


async def test_a_function_whose_interface_is_elsewhere_is_not_given_away_again(tree):
    """An earlier process gave it to a pod, or somebody else moved it."""
    pool, tokens = tree.pool(tree.card(functions=2))
    (tree.devices / "0000:3b:10.0" / "net" / "eth0v0").rmdir()
    one, other = given(tokens, NAME, 2)
    assert (await pool.take("one", one, by_vfio=False)).function.number == 1
    with pytest.raises(Exhausted, match="none of the 2 virtual functions for worker.domain/10G is free"):
        await pool.take("two", other, by_vfio=False)
    assert tokens.state(other) is State.ALLOCATED


async def test_a_function_of_another_driver_is_somebody_elses(tree):
    pool, tokens = tree.pool(tree.card(functions=1))
    tree.bind("0000:3b:10.0", "e1000e")
    with pytest.raises(Exhausted):
        await pool.take("one", given(tokens, NAME), by_vfio=False)


async def test_a_group_that_a_program_has_open_is_not_given_away_again(tree, monkeypatch):
    pool, tokens = tree.pool(tree.card(functions=2))
    for number in (0, 1):
        tree.bind(f"0000:3b:10.{number}", VFIO_DRIVER)
    opened = []

    def opens(path, *_):
        opened.append(path.name)
        if path.name == "3b0":
            raise OSError(16, "Device or resource busy")
        return 99

    monkeypatch.setattr("nsm.forwarder_sriov.pool.os.open", opens)
    monkeypatch.setattr("nsm.forwarder_sriov.pool.os.close", lambda _: None)
    assert (await pool.take("one", given(tokens, NAME), by_vfio=True)).function.number == 1
    assert opened == ["3b0", "3b1"]


async def test_a_group_that_cannot_be_looked_at_is_not_taken_for_a_free_one(tree, monkeypatch):
    pool, tokens = tree.pool(tree.card(functions=1))
    tree.bind("0000:3b:10.0", VFIO_DRIVER)

    def refuses(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("nsm.forwarder_sriov.pool.os.open", refuses)
    with pytest.raises(Conflict, match=r"cannot look whether .*3b0 is in use: Operation not permitted"):
        await pool.take("one", given(tokens, NAME), by_vfio=True)


async def test_a_token_that_is_in_use_gets_no_second_function(tree):
    pool, tokens = tree.pool(tree.card())
    token = given(tokens, NAME)
    await pool.take("one", token, by_vfio=False)
    with pytest.raises(Conflict, match="is in use by another connection"):
        await pool.take("two", token, by_vfio=False)
    with pytest.raises(Refused, match="was not given to any container"):
        await pool.take("three", next(iter(set(tokens.of(NAME)) - {token})), by_vfio=False)


async def test_two_requests_at_once_get_two_functions(tree):
    pool, tokens = tree.pool(tree.card(functions=2))
    ids = given(tokens, NAME, 2)
    taken = await asyncio.gather(*(pool.take(each, each, by_vfio=True) for each in ids))
    assert {each.function.number for each in taken} == {0, 1}


async def test_a_connection_of_an_earlier_process_keeps_its_function(tree):
    pool, tokens = tree.pool(tree.card())
    token = given(tokens, NAME)
    function = pool.functions[2]
    pool.found(function, "one", token, by_vfio=False)
    assert tokens.state(token) is State.IN_USE
    (tree.devices / function.address / "net" / "eth0v2").rmdir()
    holding = await pool.take("one", token, by_vfio=False)
    assert (holding.function, holding.is_former) == (function, False)
    pool.give_back(holding)
    pool.give_back(holding)
    assert tokens.state(token) is State.ALLOCATED
    assert pool.holdings() == []


async def test_a_function_that_cannot_be_bound_is_free_again(tree):
    pool, tokens = tree.pool(tree.card(functions=1))
    (tree.drivers / VFIO_DRIVER).rmdir()
    token = given(tokens, NAME)
    with pytest.raises(Conflict, match="the kernel has no driver vfio-pci"):
        await pool.take("one", token, by_vfio=True)
    assert pool.holdings() == []
    assert tokens.state(token) is State.ALLOCATED

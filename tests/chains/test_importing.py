"""Imports without looking for garbage: it is looked for again afterwards, however they ended."""

import gc

import pytest

from nsm.chains.importing import without_garbage_collection


@pytest.fixture(autouse=True)
def _thawed():
    yield
    gc.unfreeze()


def test_garbage_is_looked_for_again_when_all_is_imported():
    with without_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_garbage_is_looked_for_again_when_something_cannot_be_imported():
    with pytest.raises(ModuleNotFoundError), without_garbage_collection():
        import nsm.nothing  # noqa: F401
    assert gc.isenabled()

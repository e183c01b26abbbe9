"""What `make bench` measures can be measured: the quick ones of its modules run with a few of everything."""

import importlib
import pkgutil

import pytest

import bench
from bench import churn, leaks, policies, registry, webhook

MODULES = sorted(each.name for each in pkgutil.iter_modules(bench.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_each_can_be_imported(name):
    importlib.import_module(f"bench.{name}")


def figures(measured):
    """The names of figures; each has values, and none is negative."""
    assert all(values and min(values) >= 0 for _, values, _ in measured), measured
    return [name for name, _, _ in measured]


def test_policies(monkeypatch):
    monkeypatch.setattr(policies, "REQUESTS", 20)
    assert figures(policies.measure()) == ["policy_ms", "policy_refresh_ms"]


@pytest.fixture
def few_records(monkeypatch):
    few = {"ENDPOINT_COUNT": 44, "SERVICES_COUNT": 11, "LAST": 20, "FINDS": 5, "WATCHERS": 3, "CHANGES": 2}
    for name, value in few.items():
        monkeypatch.setattr(registry, name, value)


async def test_a_registry(few_records):
    found = ["register_10k_per_s", "find_10k", "find_10k_service"]
    assert figures(await registry.measure()) == [*found, "watch_100_ms", "watch_100_mib"]


async def test_durable_registries(few_records):
    assert figures(await registry.rates()) == ["sqlite_register_per_s", "etcd_register_per_s"]


async def test_the_webhook(monkeypatch):
    for name, value in {"RATE": 10, "SECONDS": 1, "_WARM_UP": 1}.items():
        monkeypatch.setattr(webhook, name, value)
    assert figures(await webhook.measure()) == ["webhook_100_per_s"]


@pytest.mark.system
async def test_churn(monkeypatch):
    monkeypatch.setattr(churn, "WARM", 5)
    monkeypatch.setattr(churn, "_LONGEST", 0.1)
    left, memory = await churn.measure(10)
    assert left >= 0
    assert memory >= 0


@pytest.mark.system
async def test_leaks(monkeypatch):
    monkeypatch.setattr(leaks, "_WARM", 5)
    monkeypatch.setattr(leaks, "_CYCLES", 5)
    assert await leaks.measure() >= 0

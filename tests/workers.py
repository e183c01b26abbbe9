"""Which tests run side by side when pytest has workers (``pytest -n auto``, as `make test` does), and which by themselves.

Most tests wait, for processes and for the kernel, so there are more workers than processors. A worker takes a file at a
time, or a folder where tests share what takes long to set up, or single tests where each sets up a mesh of its own.
"""

import os

import pytest
from xdist.scheduler import LoadScopeScheduling

ALONE = (
    "tests/apis/test_codec.py::test_compiling_is_done_once_per_type",
    "tests/chaos/test_cases.py",
    "tests/chaos/test_chaos.py",
    "tests/chains/policy/test_rego.py::test_a_policy_that_loops_refuses_in_time_and_stops_nobody_else",
    "tests/chains/policy/test_rego.py::test_calls_that_are_given_up_are_not_evaluated_side_by_side",
    "tests/hostile/test_descriptors.py::test_a_socket_that_lingers_freezes_nobody",
    "tests/hostile/test_descriptors.py::test_what_is_no_network_namespace_is_refused_at_once",
    "tests/hostile/test_endpoints_that_lie.py::test_answers_of_an_endpoint_leave_its_forwarder_to_others",
    "tests/hostile/test_endpoints_that_lie.py::test_events_of_an_endpoint_leave_its_forwarder_to_others",
    "tests/hostile/test_harness.py",
    "tests/hostile/test_policies.py",
    "tests/hostile/test_transport.py::test_a_flood_leaves_a_bystander_its_calls",
    "tests/hostile/test_transport.py::test_handshakes_that_stop_in_the_middle_hold_nobody_up",
    "tests/hostile/test_transport.py::test_the_issuer_s_socket_stays_free_for_others",
    "tests/hostile/test_transport.py::test_thousands_of_silent_connections_cost_next_to_nothing",
    "tests/hostile/test_values.py::test_thousands_of_addresses_are_refused_at_once_and_nobody_waits",
    "tests/system/forwarder_kernel/test_dataplane.py::test_many_wires_are_removed_together",
)
"""Tests that measure time or memory: they run last, with nothing beside them."""

TOGETHER = (
    "tests/system/mesh/test_vl3.py",
    "tests/system/mesh/test_vl3_balancer.py",
    "tests/hostile/",
    "tests/system/mesh/test_nodes.py::test_a_wire_between_nodes_is_there_again_when_a_killed_component_of_its_path_is",
)
"""Tests that share a mesh."""

IN_CLUSTER = "tests/k8s/"
WITH_API_SERVER = (
    "tests/k8s/test_registry_store.py",
    "tests/k8s/test_webhook.py",
    "tests/k8s/test_webhook_files.py",
    "tests/k8s/test_webhook_replicas.py",
    "tests/k8s/test_webhook_uninstalled.py",
    "tests/k8s/test_what_a_registry_does.py",
)
"""Tests that start an API server of their own, beside those that share the cluster, and mostly wait."""

APART = ("tests/system/",)
"""Folders in which each test has a mesh of its own, which takes seconds."""

FIRST = (
    IN_CLUSTER,
    "tests/system/",
    "tests/hostile/",
    "tests/packaging/",
    "tests/services/",
    "tests/chains/transport/",
)
"""Folders with the longest tests, so that no worker begins with one when the others have nothing left to do."""

LAST = "alone"


def group_of(nodeid):
    """What a worker takes together with this test."""
    if nodeid.startswith(ALONE):
        return LAST
    if nodeid.startswith(IN_CLUSTER) and not nodeid.startswith(WITH_API_SERVER):
        return IN_CLUSTER
    if shared := next((each for each in TOGETHER if nodeid.startswith(each)), None):
        return shared
    return nodeid if nodeid.startswith(APART) else nodeid.partition("::")[0]


def turn_of(nodeid):
    if nodeid.startswith(ALONE):
        return len(FIRST) + 1
    if nodeid.startswith(WITH_API_SERVER):
        return len(FIRST)
    return next((turn for turn, folder in enumerate(FIRST) if nodeid.startswith(folder)), len(FIRST))


class Turns(LoadScopeScheduling):
    """Hands out groups in the order of the collection; the tests of `ALONE` when all workers but one have ended."""

    def _split_scope(self, nodeid):
        return group_of(nodeid)

    def _assign_work_unit(self, node):
        if LAST in self.workqueue:
            self.workqueue.move_to_end(LAST)  # a worker that crashed gives back what it had
        if list(self.workqueue) != [LAST]:
            super()._assign_work_unit(node)
        elif self.nodes == [node]:
            super()._assign_work_unit(node)
            node.shutdown()  # it ends after them

    def _reschedule(self, node):
        others = [each for each in self.nodes if each is not node and not each.shutting_down]
        if node not in self.registered_collections:
            return  # it comes for one that crashed, and still collects
        if list(self.workqueue) == [LAST] and others:
            node.shutdown()  # after what it has; the last worker stays
        else:
            super()._reschedule(node)

    def remove_node(self, node):
        """What a worker has not done goes to others, but for the test that it crashed in, which is the result."""
        groups = self.assigned_work.pop(node).items()
        left = {group: {test: False for test, done in tests.items() if not done} for group, tests in groups}
        crashed = next((test for tests in left.values() for test in tests), None)
        for tests in left.values():
            tests.pop(crashed, None)
        self.workqueue.update({group: tests for group, tests in left.items() if tests})
        for each in self.nodes:
            if self.workqueue:
                self._reschedule(each)
        return crashed


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False  # by the number of tests, which says nothing of how long they take
    return Turns(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    return 2 * len(os.sched_getaffinity(0))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: turn_of(item.nodeid))

"""A Kubernetes of two nodes on this machine, for the tests and for trying things: `python -m tests.cluster`.

All of it, the nodes too, runs in namespaces of its own and ends with one process. What a cluster keeps while it runs is
in the checkout's folder `.cluster`; the programs of Kubernetes are built once and kept in the user's cache.
"""

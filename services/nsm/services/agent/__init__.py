"""The agent of a node: it keeps the wires that were attached to running processes, containers and namespaces."""

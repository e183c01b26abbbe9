"""Looks into wires by real packets: echoes, streams, captures; in the network namespaces of their two ends.

A socket belongs to the namespace in which it was opened, whoever uses it. So a probe enters the namespaces of a wire's
ends only to open its sockets, and nothing has to be installed, or even to run, in the workloads.
"""

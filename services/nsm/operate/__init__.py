"""The commands that operate a mesh: list wires, explain why one is down, predict which endpoint a client gets.

All of them have the same targets, options and exit codes, from `command`. A command is started often, and by people who
wait for it: modules import at their top only what every command needs, and everything else where it is used.
"""

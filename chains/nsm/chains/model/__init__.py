"""Pure rules of the mesh: no I/O, no time, no chains."""

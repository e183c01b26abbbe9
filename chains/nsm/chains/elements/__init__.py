"""The elements of connection chains: one file each."""

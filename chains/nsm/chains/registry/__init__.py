"""The elements of registry chains, one file each."""

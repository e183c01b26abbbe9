"""The elements that connections pass: one file each."""

"""The elements that registrations pass: one file each."""

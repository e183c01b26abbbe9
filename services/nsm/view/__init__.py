"""What a mesh looks like at present and what occurred in it: one source for commands, pages and other tools."""

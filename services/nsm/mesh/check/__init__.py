"""`nsm check`: tries what this machine and this user can do, and shows how to fix what they cannot."""

"""`nsm check`: what this machine and this user can do, tried for real, and how to mend what they cannot."""

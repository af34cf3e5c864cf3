"""Child processes and what they need: ports, folders, an unprivileged account, signals."""

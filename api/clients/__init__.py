"""The client's address behind proxies, and limits on how often a client may send requests."""

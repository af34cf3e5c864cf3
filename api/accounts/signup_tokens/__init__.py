"""The signup token: its signature, the requests that carry it, and the account that it belongs to."""

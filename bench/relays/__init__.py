"""Relays to compare: ours, common ones, a peer's, and a lower bound."""

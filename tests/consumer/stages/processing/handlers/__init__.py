"""Handlers, and what they do in a transaction."""

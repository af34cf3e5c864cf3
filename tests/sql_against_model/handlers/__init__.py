"""Handlers, against the models of handlers/."""

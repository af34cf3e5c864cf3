"""Webhooks, and what their endpoints answer."""

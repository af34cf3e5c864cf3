"""Accounts and their links, against the model of accounts/."""

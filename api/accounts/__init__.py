"""Accounts: sign up, verify the email address, change it, and send the mail again."""

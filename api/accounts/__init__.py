"""What people do with their accounts: sign up, verify, correct an address, ask for the mail again."""

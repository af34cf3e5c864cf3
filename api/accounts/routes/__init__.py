"""The HTTP routes and pages of accounts, with the schemas of what they take and answer."""

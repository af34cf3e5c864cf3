"""The HTTP routes and pages of accounts, with the schemas of requests and responses."""

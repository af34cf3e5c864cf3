"""The API's connections to PostgreSQL, and the notifier of the relay."""

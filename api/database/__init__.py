"""The API's connections to PostgreSQL, and the NOTIFY that wakes the relay after a commit."""

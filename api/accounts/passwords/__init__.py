"""Which passwords are accepted, and how they are hashed and compared."""
